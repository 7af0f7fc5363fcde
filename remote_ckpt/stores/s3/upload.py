"""Upload a file as an object: find the object already there, put the file in one request, or send parts."""

from __future__ import annotations

import logging

from remote_ckpt.errors import PreconditionFailedError
from remote_ckpt.stores.base import MIB, ObjectInfo
from remote_ckpt.stores.s3 import presence
from remote_ckpt.stores.s3.delta import find_source
from remote_ckpt.stores.s3.multipart import CopiedInVainError, Multipart
from remote_ckpt.stores.s3.upload_context import S3UploadContext
from remote_ckpt.stores.sources import require_match
from remote_ckpt.stores.transfer.part_plan import Range

log = logging.getLogger("remote_ckpt")

_SINGLE = 8 * MIB  # up to here one request is quicker
_TRIFLE = MIB  # up to here sending it is quicker than having it copied


async def upload(job: S3UploadContext, *, look_first: bool) -> ObjectInfo:
    """Create the object from the file; see `ObjectStore.upload`.

    Args:
        job: The upload.
        look_first: Whether to look for the key before an upload in a single request. Before an upload in parts the key
            is always looked for: otherwise gigabytes may be sent before the server refuses the name.
    """
    single = job.digests.size <= (_TRIFLE if _is_known(job) else _SINGLE)
    if look_first or not single:
        present = await presence.look(job)
        if present is not None:
            return await presence.accept(job, present)
    return await (_put(job) if single else _in_parts(job))


def _is_known(job: S3UploadContext) -> bool:
    base = job.base
    return base is not None and (base.digests.size, base.digests.sha256) == (job.digests.size, job.digests.sha256)


async def _in_parts(job: S3UploadContext) -> ObjectInfo:
    """Copy unchanged parts from the base and send the rest; if the copies are refused or wrong, send everything."""
    source = await find_source(job.session, job.base, job.digests)
    try:
        return await Multipart(job, source).run()
    except CopiedInVainError as exc:
        log.info("Sending all of %s: with copies of an earlier object it failed. %s", job.url, exc)
        return await Multipart(job, None).run()


async def _put(job: S3UploadContext) -> ObjectInfo:
    whole = Range(1, 0, job.digests.size)
    crc = await job.crc32c(whole)
    require_match(job.source, job.digests, whole.size, crc)
    body = job.body(whole)
    try:
        answer = await job.retry(
            lambda: job.send("put_object", body, crc, IfNoneMatch="*", **job.session.owned_by(job.owner))
        )
    except PreconditionFailedError as exc:  # another writer's object; or our own earlier request, its answer lost
        return await presence.resolve(job, exc)
    proven = await job.agrees(answer, body, crc) is True
    job.tell(whole.size)
    return await presence.verify(job, proven=proven)
