"""Probe an S3 server, AWS included, for conditional requests, range copies and owners."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from remote_ckpt.errors import InvalidRequestError, ObjectNotFoundError, PreconditionFailedError, StoreError
from remote_ckpt.location import HIDDEN
from remote_ckpt.stores import probing
from remote_ckpt.stores.base import Capabilities, Expect, Version
from remote_ckpt.stores.checksums import crc32c, encode
from remote_ckpt.stores.s3 import multipart_requests, objects
from remote_ckpt.stores.s3.errors import code_of
from remote_ckpt.stores.s3.session import S3Session
from remote_ckpt.stores.transfer.download import collect
from remote_ckpt.stores.transfer.part_plan import Range
from remote_ckpt.stores.transfer.rate_limit import RateLimit

Put = Callable[[str, bytes, "Version | Expect"], Version]

_DATA = b"0123456789"
_OWNER = "probe"


def probe(session: S3Session, put: Put) -> Capabilities:
    """Try conditional writes, owners, multipart completion, a range copy and a conditional delete.

    The objects are deleted again; deleting that fails is not reported.

    Raises:
        StoreError: The bucket cannot be written at all, or an answer was lost: it is not known what the server does.
    """
    key = f"{HIDDEN}/probe-{uuid.uuid4().hex}"
    try:
        create_only, version = probing.try_create_only(partial(put, key))
        swap = probing.try_compare_and_swap(
            partial(put, key), lambda: session.run(objects.read(session, key, len(_DATA))), version
        )
        owners = session.run(_keeps_owner(session, key))
        parts = session.run(_refuses_parts(session, key))
        ranges = session.run(_copies_range(session, key, f"{key}-copy"))
        deletes = probing.try_conditional_delete(
            lambda version: session.run(objects.delete(session, key, version)),
            lambda: session.run(objects.head(session, key)).version,
        )
    finally:
        for used in (key, f"{key}-copy"):
            with suppress(StoreError):  # already deleted; or left behind, which must not hide what the probe found
                session.run(session.call("delete_object", "delete", used))
    facts = (
        (create_only, probing.NO_CREATE_ONLY),
        (swap, probing.NO_COMPARE_AND_SWAP),
        (parts or not create_only, probing.NO_CREATE_ONLY_UPLOAD),
        (ranges, probing.NO_RANGE_COPY),
    )
    notes = tuple(note for holds, note in facts if not holds)
    return Capabilities(create_only, swap, parts, ranges, conditional_delete=deletes, owners=owners, notes=notes)


async def _keeps_owner(session: S3Session, key: str) -> bool:
    """Write an object with an owner; return whether the stored object has this owner."""
    await objects.send(session, "put_object", "probe", key, _DATA, _crc(), **session.owned_by(_OWNER))
    return (await objects.head(session, key)).owner == _OWNER


async def _refuses_parts(session: S3Session, key: str) -> bool:
    """Complete an upload to an existing key on condition of absence; return whether the server refused."""
    upload_id = await multipart_requests.begin(session, key)
    try:
        answer = await objects.send(
            session, "upload_part", "probe", key, _DATA, _crc(), UploadId=upload_id, PartNumber=1
        )
        await multipart_requests.complete(session, key, upload_id, [str(answer["ETag"])], crc=_crc(), create_only=True)
    except PreconditionFailedError:
        await multipart_requests.abort(session, key, upload_id)
        return True
    except InvalidRequestError:  # this server does not support the header at all
        await multipart_requests.abort(session, key, upload_id)
        return False
    except BaseException:
        # Shielded: a second cancellation must not stop the abort, or the part would stay and cost money.
        await asyncio.shield(multipart_requests.abort(session, key, upload_id))
        raise
    return False


async def _copies_range(session: S3Session, source: str, target: str) -> bool:
    """Copy four bytes from the middle of an object; return whether the server supports range copies."""
    upload_id = await multipart_requests.begin(session, target)
    origin = {"Bucket": session.bucket, "Key": session.prefix + source}
    try:
        answer = await session.call(
            "upload_part_copy",
            "probe",
            target,
            UploadId=upload_id,
            PartNumber=1,
            CopySource=origin,
            CopySourceRange="bytes=3-6",
        )
        etag = str(answer["CopyPartResult"]["ETag"])
        await multipart_requests.complete(session, target, upload_id, [etag], crc=None, create_only=False)
        return await _content(session, target) == _DATA[3:7]
    except (InvalidRequestError, ObjectNotFoundError, KeyError) as exc:
        await multipart_requests.abort(session, target, upload_id)
        # AWS copies ranges of objects above 5 MiB only; uploads compare each copied part, and send it if it is wrong.
        return code_of(exc) == "InvalidRequest"
    except BaseException:
        await asyncio.shield(multipart_requests.abort(session, target, upload_id))
        raise


async def _content(session: S3Session, key: str) -> bytes:
    """Return an object's bytes; ignore the server's checksum, because moto reports a wrong checksum after parts."""
    info = await objects.head(session, key)
    pieces: list[bytes] = []
    await objects.get_range(session, key, Range(1, 0, info.size), info.version, RateLimit(None), collect(pieces))
    return b"".join(pieces)


def _crc() -> str:
    return encode(crc32c(_DATA))
