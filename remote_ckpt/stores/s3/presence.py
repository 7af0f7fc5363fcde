"""Is the object there, is it ours, is it whole?"""

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
from remote_ckpt.stores.s3.job import S3Job


class DamagedError(TransientError):
    """The finished object differed from the file, and was deleted."""


async def look(job: S3Job) -> ObjectInfo | None:
    """Return what has the key now, if anything; None also where it is not allowed to look."""
    try:
        return await job.retry(lambda: objects.head(job.session, job.key))
    except ObjectNotFoundError:
        return None
    except AccessDeniedError:  # AWS says so of a missing object to those who may not list
        return None


async def resolve(job: S3Job, refused: StoreError) -> ObjectInfo:
    """Find out whether the service refuses because an earlier request of ours, whose answer was lost, succeeded.

    Raises:
        PreconditionFailedError: Other bytes have the key.
        TransientError: Nothing has it: another writer's request was under way, or our parts are gone. Begin again.
    """
    present = await look(job)
    if present is None:
        raise TransientError(f"{refused} But nothing has that name now.") from refused
    return await accept(job, present, refused)


async def accept(job: S3Job, present: ObjectInfo, refused: StoreError | None = None) -> ObjectInfo:
    """Take an object for ours if it has our bytes, and our owner where the service keeps it.

    Raises:
        PreconditionFailedError: It has others.
    """
    if not job.is_ours(present):
        raise PreconditionFailedError(f"Cannot create {job.url}: another writer's object has this name.") from refused
    if present.size == job.digests.size and await _crc32c(job, present) == job.digests.crc32c:
        job.report.reused += present.size
        job.tell(present.size)
        return present
    raise PreconditionFailedError(f"Cannot create {job.url}: other bytes have this name.") from refused


async def verify(job: S3Job, *, proven: bool) -> ObjectInfo:
    """Return the finished object, after comparing it with the digests of the file.

    Args:
        job: The upload.
        proven: Whether the service has confirmed each part by itself; else a service that does not know the whole
            object's crc32c has it read back.

    Raises:
        PreconditionFailedError: Another writer's object is there instead; servers that ignore "create only" allow that.
        DamagedError: It differed, and was deleted.
    """
    info = await job.retry(lambda: objects.head(job.session, job.key))
    if info.owner is not None and not job.is_ours(info):
        raise PreconditionFailedError(f"{job.url} was overwritten by another writer.")
    if info.size == job.digests.size:
        if info.crc32c == job.digests.crc32c:
            return info
        if proven:
            job.session.whole_crc32c = info.crc32c is None
            return replace(info, crc32c=job.digests.crc32c)
        if await job.retry(lambda: objects.whole_crc32c(job.session, info)) == job.digests.crc32c:
            return info
    await _delete(job, info)
    raise DamagedError(f"{job.url} arrived damaged and was deleted.")


async def _delete(job: S3Job, info: ObjectInfo) -> None:
    """Delete the damaged object, if it is still that one."""
    with suppress(PreconditionFailedError):
        try:
            await job.retry(lambda: objects.delete(job.session, job.key, info.version))
        except InvalidRequestError:  # this server does not take conditions
            await job.retry(lambda: objects.delete(job.session, job.key))


async def _crc32c(job: S3Job, info: ObjectInfo) -> str:
    told = info.crc32c
    if told == job.digests.crc32c or (told is not None and job.session.whole_crc32c):
        return told
    return await job.retry(lambda: objects.whole_crc32c(job.session, info))
