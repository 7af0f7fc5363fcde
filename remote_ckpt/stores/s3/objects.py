"""Requests about a single object: put, get, head, delete; and a page of a listing."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress
from typing import Any

from botocore.exceptions import FlexibleChecksumError

from remote_ckpt.errors import (
    InvalidRequestError,
    ObjectNotFoundError,
    OutcomeUnknownError,
    RemoteCkptError,
    TransientError,
)
from remote_ckpt.stores.base import MIB, Expect, ObjectInfo, Version
from remote_ckpt.stores.checksums import crc32c, encode
from remote_ckpt.stores.owners import owner_in
from remote_ckpt.stores.s3.errors import translate
from remote_ckpt.stores.s3.session import S3Session
from remote_ckpt.stores.transfer.answers import time_for
from remote_ckpt.stores.transfer.download import Sink, collect, pour
from remote_ckpt.stores.transfer.part_plan import Range
from remote_ckpt.stores.transfer.rate_limit import RateLimit
from remote_ckpt.stores.transfer.request_body import InMemory, PartBody

_CHUNK = MIB
_BLOCK = 8 * MIB


async def put(session: S3Session, key: str, data: bytes, crc: str, expect: Version | Expect) -> Version:
    """Write an object in a single request, with a checksum for the server to compare.

    Raises:
        PreconditionFailedError: The object is not as `expect` requires. aiohttp may have repeated the request.
        OutcomeUnknownError: The answer was lost or damaged; the object may have been written.
    """
    answer = await send(session, "put_object", "write", key, data, crc, **condition(expect))
    if "ETag" not in answer:
        raise OutcomeUnknownError(f"{session.name(key)} was written, and the answer was damaged on its way (no ETag).")
    return Version(str(answer["ETag"]))


async def send(
    session: S3Session, method: str, doing: str, key: str, data: bytes | PartBody, crc: str, **arguments: Any
) -> dict[str, Any]:
    """Send bytes with their crc32c, or with their md5 to a server without support for crc32c.

    The first refusal of a crc32c is remembered in `session.crc32c`, if the same request succeeds with an md5.
    """
    if session.crc32c:
        checksum = {"ChecksumAlgorithm": "CRC32C", "ChecksumCRC32C": crc}
        try:
            return await session.call(method, doing, key, Body=data, **checksum, **arguments)
        except InvalidRequestError:  # servers without crc32c refuse so; or the request is wrong, and fails again below
            answer = await _send_with_md5(session, method, doing, key, data, **arguments)
            session.crc32c = False
            return answer
    return await _send_with_md5(session, method, doing, key, data, **arguments)


async def _send_with_md5(
    session: S3Session, method: str, doing: str, key: str, data: bytes | PartBody, **arguments: Any
) -> dict[str, Any]:
    body = data if isinstance(data, PartBody) else PartBody(InMemory(data), RateLimit(None))
    md5 = base64.b64encode(await asyncio.to_thread(body.md5)).decode()
    return await session.call(method, doing, key, Body=data, ContentMD5=md5, **arguments)


def agrees(answer: dict[str, Any], body: PartBody, crc: str) -> bool | None:
    """Compare the checksum in the service's answer with the bytes; return None if the answer proves nothing.

    Reads the bytes from the disk when the answer has no crc32c. An ETag that is the md5 of the bytes proves them; any
    other ETag proves nothing, since a server may form ETags in another way.
    """
    if told := answer.get("ChecksumCRC32C"):
        return bool(told == crc)
    etag = str(answer.get("ETag", "")).strip('"')
    return True if etag == body.md5().hex() else None


async def whole_crc32c(session: S3Session, info: ObjectInfo) -> str:
    """Compute the crc32c of an object by downloading all bytes, for a service without this checksum."""
    crc = 0
    for start in range(0, info.size, _BLOCK):
        part = Range(0, start, min(start + _BLOCK, info.size))
        pieces: list[bytes] = []
        await get_range(session, info.key, part, info.version, RateLimit(None), collect(pieces))
        crc = crc32c(b"".join(pieces), crc)
    return encode(crc)


def condition(expect: Version | Expect) -> dict[str, str]:
    """Return the argument of the precondition; empty for `ANYTHING`."""
    if expect is Expect.ANYTHING:
        return {}
    if expect is Expect.ABSENT:
        return {"IfNoneMatch": "*"}
    return {"IfMatch": str(expect)}


async def delete(session: S3Session, key: str, version: Version | None = None) -> None:
    """Delete an object, or delete the object only if at `version`; a missing object counts as deleted.

    Raises:
        PreconditionFailedError: The object has another version.
        InvalidRequestError: The server does not support the condition.
    """
    wanted = {} if version is None else {"IfMatch": str(version)}
    with suppress(ObjectNotFoundError):  # deleted before, perhaps by an earlier request of ours whose answer was lost
        await session.call("delete_object", "delete", key, **wanted)


async def head(session: S3Session, key: str) -> ObjectInfo:
    """Return the size, version, checksum, time and owner of an object."""
    answer = await session.call("head_object", "look at", key, ChecksumMode="ENABLED")
    return ObjectInfo(
        key,
        int(answer["ContentLength"]),
        Version(str(answer["ETag"])),
        crc32c=_whole(answer),
        modified=answer.get("LastModified"),
        owner=owner_in(answer.get("Metadata")),
    )


def _whole(answer: dict[str, Any]) -> str | None:
    """Return the crc32c of the whole object; None for a "composite" checksum (with "-5" at the end for five parts)."""
    value = answer.get("ChecksumCRC32C")
    composite = value is None or "-" in value or answer.get("ChecksumType") == "COMPOSITE"
    return None if composite else str(value)


async def read(session: S3Session, key: str, limit: int) -> tuple[bytes, Version]:
    """Return a small object's bytes and version; compare the bytes with the service's checksum, if there is one.

    Raises:
        InvalidRequestError: The object has more than `limit` bytes; none of them is read.
        TransientError: The bytes were damaged on their way (a damaged manifest would be written back), or the answer
            took too long.
    """
    answer = await session.call("get_object", "read", key, ChecksumMode="ENABLED")
    pieces: list[bytes] = []
    try:
        size = int(answer["ContentLength"])
        version = Version(str(answer["ETag"]))
        if size > limit:
            raise InvalidRequestError(
                f"Cannot read {session.name(key)}: it has {size} bytes, and at most {limit} are read at once."
            )
        read = _drain(session, "read", key, answer, size, RateLimit(None), collect(pieces))
        await asyncio.wait_for(read, time_for(size))
    except asyncio.TimeoutError as exc:  # a byte now and then satisfies the timeout of a single read, but not this one
        raise translate(exc, "get_object", "read", session.name(key)) from exc
    finally:
        answer["Body"].close()
    data = b"".join(pieces)
    if (told := _whole(answer)) is not None and told != encode(crc32c(data)):
        raise TransientError(f"Cannot read {session.name(key)}: it was damaged on its way (crc32c).")
    return data, version


async def get_range(session: S3Session, key: str, part: Range, version: Version, pace: RateLimit, sink: Sink) -> None:
    """Download a range of exactly this version of an object into `sink`.

    Raises:
        PreconditionFailedError: The object has another version by now.
        TransientError: The connection broke, or bytes are missing; `sink` has received the bytes before that.
    """
    wanted = f"bytes={part.start}-{part.end - 1}"
    answer = await session.call("get_object", "fetch", key, Range=wanted, IfMatch=str(version))
    await _drain(session, "fetch", key, answer, part.size, pace, sink)


async def _drain(
    session: S3Session, doing: str, key: str, answer: dict[str, Any], size: int, pace: RateLimit, sink: Sink
) -> None:
    body = answer["Body"]
    try:
        arrived = await pour(body.iter_chunks(_CHUNK), sink, pace, size)
    except RemoteCkptError:  # from the sink: the local disk, or more bytes than asked for
        raise
    except FlexibleChecksumError as exc:  # botocore compares too, where the package awscrt is installed
        raise TransientError(f"Cannot {doing} {session.name(key)}: it was damaged on its way ({exc}).") from exc
    except Exception as exc:  # the body is read after `session.call` has returned, so errors are not translated there
        raise translate(exc, "get_object", doing, session.name(key)) from exc
    finally:
        body.close()
    if arrived != size:
        raise TransientError(f"Cannot {doing} {session.name(key)}: {arrived} of {size} bytes arrived.")


async def list_page(session: S3Session, prefix: str, more: dict[str, Any]) -> tuple[list[ObjectInfo], dict[str, Any]]:
    """Return a page of a listing, and the arguments for the next page; no arguments at the end."""
    answer = await session.call("list_objects_v2", "list", "", Prefix=session.prefix + prefix, **more)
    found = [
        ObjectInfo(
            str(item["Key"])[len(session.prefix) :],
            int(item.get("Size", 0)),  # some servers leave it out for empty objects
            Version(str(item.get("ETag", ""))),
            modified=item.get("LastModified"),
        )
        for item in answer.get("Contents", ())
        if not str(item.get("Key", "")).endswith("/")  # the empty objects with which consoles draw folders
    ]
    token = answer.get("NextContinuationToken") if answer.get("IsTruncated") else None
    return found, {"ContinuationToken": token} if token else {}
