"""Copies inside S3."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from remote_ckpt.errors import InvalidRequestError
from remote_ckpt.stores.base import MIB, ObjectInfo
from remote_ckpt.stores.s3 import multipart_requests, objects
from remote_ckpt.stores.s3.session import S3Session
from remote_ckpt.stores.transfer.answers import FieldMissingError
from remote_ckpt.stores.transfer.concurrency import ConcurrencyWindow, slide
from remote_ckpt.stores.transfer.part_plan import Range, evenly

_AT_ONCE = 256 * MIB  # S3 copies up to 5 GiB in one request, slowly, and sends nothing until the end
_PART = 128 * MIB
_WIDTH = 8


async def copy(
    session: S3Session, source: str, target: str, *, at_once: int = _AT_ONCE, part: int = _PART
) -> ObjectInfo:
    """Copy an object over another object; above `at_once` bytes in ranges of `part` bytes, in parallel.

    `target` is replaced in one step: after an error it has its old bytes or the new ones, never a mixture.
    """
    info = await objects.head(session, source)
    origin = {
        "CopySource": {"Bucket": session.bucket, "Key": session.prefix + source},
        "CopySourceIfMatch": str(info.version),  # another process may replace the source between the requests
    }
    if info.size <= at_once or not await _in_parts(session, target, evenly(info.size, part), origin):
        await session.call("copy_object", "copy to", target, **origin)
    return await objects.head(session, target)


async def _in_parts(session: S3Session, target: str, parts: Sequence[Range], origin: dict[str, Any]) -> bool:
    """Copy range by range; return False if the server does not support range copies. Abort after any failure."""
    upload_id = await multipart_requests.begin(session, target)
    etags: dict[int, str] = {}

    async def one(part: Range) -> None:
        wanted = {"CopySourceRange": f"bytes={part.start}-{part.end - 1}", "PartNumber": part.number}
        answer = await session.call("upload_part_copy", "copy to", target, UploadId=upload_id, **wanted, **origin)
        etags[part.number] = str(answer["CopyPartResult"]["ETag"])

    try:
        await slide((partial(one, part) for part in parts), ConcurrencyWindow(_WIDTH))
        ordered = [etags[part.number] for part in parts]
        await multipart_requests.complete(session, target, upload_id, ordered, crc=None, create_only=False)
    except BaseException as exc:
        # Shielded: a second cancellation must not stop the abort, or the parts would stay and cost money.
        await asyncio.shield(multipart_requests.abort(session, target, upload_id))
        if isinstance(exc, (InvalidRequestError, FieldMissingError)):  # some servers do not support range copies
            return False
        raise
    return True
