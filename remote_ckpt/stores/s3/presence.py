"""Find out whether an object exists, whether this upload made the object, and whether its bytes are right."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from remote_ckpt.errors import (
    AccessDeniedError,
    InvalidRequestError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreError,
    TransientError,
)
from remote_ckpt.stores.base import ObjectInfo
from remote_ckpt.stores.s3 import objects
from remote_ckpt.stores.s3.upload_context import S3UploadContext


class DamagedError(TransientError):
    """A finished object differed from the file; deleted, unless another writer had replaced the object by then."""


async def look(job: S3UploadContext) -> ObjectInfo | None:
    """Return the object under the key; None if there is none, or if the credentials may not look."""
    try:
        return await job.retry(lambda: objects.head(job.session, job.key))
    except ObjectNotFoundError:
        return None
    except AccessDeniedError:  # AWS answers 403 for a missing object to credentials without s3:ListBucket
        return None


async def resolve(job: S3UploadContext, refused: StoreError) -> ObjectInfo:
    """Return our object if the refusal came from an earlier request of ours: successful, but the answer was lost.

    Raises:
        PreconditionFailedError: Other bytes, or another writer's object, have the key.
        TransientError: No object has the key: another writer's request was under way, or our parts are gone. Begin
            again.
    """
    present = await look(job)
    if present is None:
        raise TransientError(f"{refused} But nothing has that name now.") from refused
    return await accept(job, present, refused)


async def accept(job: S3UploadContext, present: ObjectInfo, refused: StoreError | None = None) -> ObjectInfo:
    """Return `present` as our object if the bytes are ours, and the owner too where the service keeps owners.

    Raises:
        PreconditionFailedError: The object has other bytes or another owner.
    """
    if not job.is_ours(present):
        raise PreconditionFailedError(f"Cannot create {job.url}: another writer's object has this name.") from refused
    if present.size == job.digests.size and await _crc32c(job, present) == job.digests.crc32c:
        job.report.reused += present.size
        job.tell(present.size)
        return present
    raise PreconditionFailedError(f"Cannot create {job.url}: other bytes have this name.") from refused


async def verify(job: S3UploadContext, *, proven: bool) -> ObjectInfo:
    """Return the finished object, after comparing it with the digests of the file.

    Args:
        job: The upload.
        proven: Whether the service has confirmed the checksum of each part. If not, and if the service does not report
            our crc32c for the whole object, the object is read back.

    Raises:
        PreconditionFailedError: Another writer's object has the key; servers that ignore "create only" allow that.
        DamagedError: The object differed, and was deleted.
    """
    info = await job.retry(lambda: objects.head(job.session, job.key))
    if info.owner is not None and not job.is_ours(info):
        raise PreconditionFailedError(f"{job.url} was overwritten by another writer.")
    if info.size == job.digests.size:
        if info.crc32c == job.digests.crc32c:
            return info
        if proven:
            # All parts are right. If a crc32c is reported and differs, this server's is not of the whole object (moto).
            job.session.whole_crc32c = info.crc32c is None
            return replace(info, crc32c=job.digests.crc32c)
        if await job.retry(lambda: objects.whole_crc32c(job.session, info)) == job.digests.crc32c:
            return info
    await _delete(job, info)
    raise DamagedError(f"{job.url} arrived damaged and was deleted.")


async def _delete(job: S3UploadContext, info: ObjectInfo) -> None:
    """Delete the damaged object, unless another writer has replaced the object."""
    with suppress(PreconditionFailedError):  # another writer's object has the key by now
        try:
            await job.retry(lambda: objects.delete(job.session, job.key, info.version))
        except InvalidRequestError:  # this server does not support conditions on DELETE
            await job.retry(lambda: objects.delete(job.session, job.key))


async def _crc32c(job: S3UploadContext, info: ObjectInfo) -> str:
    told = info.crc32c
    if told == job.digests.crc32c or (told is not None and job.session.whole_crc32c):
        return told
    return await job.retry(lambda: objects.whole_crc32c(job.session, info))
