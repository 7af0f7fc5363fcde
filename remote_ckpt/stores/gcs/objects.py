"""Requests about a single object: insert, look, read, compose, rewrite, delete; and a page of a listing."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from remote_ckpt.errors import ObjectNotFoundError, TransientError
from remote_ckpt.stores.base import Expect, ObjectInfo, Version
from remote_ckpt.stores.checksums import crc32c, encode
from remote_ckpt.stores.gcs.session import GcsSession
from remote_ckpt.stores.owners import metadata_of, owner_in
from remote_ckpt.stores.transfer.answers import time_for
from remote_ckpt.stores.transfer.download import Sink, collect
from remote_ckpt.stores.transfer.part_plan import Range
from remote_ckpt.stores.transfer.rate_limit import RateLimit
from remote_ckpt.stores.transfer.request_body import Content, InMemory, PartBody

MOST_SOURCES = 32  # https://cloud.google.com/storage/docs/composite-objects


def condition(expect: Version | Expect) -> dict[str, str]:
    """Return the argument of the precondition; generation 0 stands for a missing object."""
    if expect is Expect.ANYTHING:
        return {}
    return {"ifGenerationMatch": "0" if expect is Expect.ABSENT else str(expect)}


def as_object(session: GcsSession, resource: dict[str, Any]) -> ObjectInfo:
    """Return an object's resource in the JSON API as `ObjectInfo`.

    Raises:
        TransientError: A required field is missing or malformed: the answer was damaged on its way, or did not come
            from the service.
    """
    try:
        updated = resource.get("updated")
        return ObjectInfo(
            str(resource["name"])[len(session.prefix) :],
            int(resource.get("size", 0)),  # some emulators leave it out for empty objects
            version_of(session, resource),
            crc32c=resource.get("crc32c"),
            modified=datetime.fromisoformat(str(updated).replace("Z", "+00:00")) if updated else None,
            owner=owner_in(resource.get("metadata")),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as exc:
        raise TransientError(f"What was said of {session.name('')} was damaged on its way ({exc!r}).") from exc


def version_of(session: GcsSession, answer: Mapping[str, Any]) -> Version:
    """Return the generation in an answer's fields or headers.

    Raises:
        TransientError: There is none.
    """
    found = answer.get("generation") or answer.get("X-Goog-Generation")
    if found is None:
        raise TransientError(f"What was said of {session.name('')} was damaged on its way (no generation).")
    return Version(str(found))


def enclose(
    session: GcsSession, key: str, content: Content, crc: str, pace: RateLimit, owner: str | None = None
) -> tuple[PartBody, str]:
    """Return the body of an insert request and the content type.

    The body has the metadata first, with the checksum for the service to compare, and then the bytes. Its lines end in
    CR LF, as the standard requires; those of gcsfs do not, and some servers refuse them.
    """
    boundary = secrets.token_hex(16)
    kind = "application/json" if key.endswith(".json") else "application/octet-stream"
    resource = {"name": session.prefix + key, "crc32c": crc, "contentType": kind, **_owned_by(owner)}
    metadata = json.dumps(resource)
    head = (
        f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{metadata}\r\n"
        f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n"
    )
    body = PartBody(content, pace, head=head.encode(), tail=f"\r\n--{boundary}--\r\n".encode())
    return body, f"multipart/related; boundary={boundary}"


def _owned_by(owner: str | None) -> dict[str, dict[str, str]]:
    metadata = metadata_of(owner)
    return {"metadata": metadata} if metadata else {}


async def put(
    session: GcsSession, key: str, data: bytes, expect: Version | Expect, owner: str | None = None
) -> Version:
    """Write a small object in a single request; the service compares the checksum.

    Raises:
        PreconditionFailedError: The object is not as `expect` requires.
        OutcomeUnknownError: The answer was lost; the object may have been written.
    """
    body, kind = enclose(session, key, InMemory(data), encode(crc32c(data)), RateLimit(None), owner)
    answer = await session.send(body, kind, "write", key, **condition(expect))
    return version_of(session, answer)


async def look(session: GcsSession, key: str) -> ObjectInfo:
    """Return the size, version, checksum, time and owner of an object."""
    return as_object(session, await session.call("GET", session.object_path(key), "look at", key))


async def read(session: GcsSession, key: str, limit: int) -> tuple[bytes, Version]:
    """Return a small object's bytes and generation; compare the bytes with the service's checksum, if there is one.

    Raises:
        InvalidRequestError: The object has more than `limit` bytes.
        TransientError: The bytes were damaged on their way (a damaged manifest would be written back), or the answer
            took too long.
        BucketNotFoundError: The bucket is missing, not only the object.
    """
    pieces: list[bytes] = []
    try:
        reading = session.download("read", key, collect(pieces), pace=RateLimit(None), headers={}, limit=limit)
        headers, _ = await asyncio.wait_for(reading, time_for(limit))
    except asyncio.TimeoutError as exc:  # a byte now and then satisfies the timeout of a single read, but not this one
        raise TransientError(f"Cannot read {session.name(key)}: the answer trickles, and was given up.") from exc
    except ObjectNotFoundError:  # the same 404 for a missing object and for a missing bucket
        await session.require_bucket()
        raise
    data = b"".join(pieces)
    told = ",".join(headers.getall("X-Goog-Hash", ()))
    if "crc32c=" in told and f"crc32c={encode(crc32c(data))}" not in told:
        raise TransientError(f"Cannot read {session.name(key)}: it was damaged on its way (crc32c).")
    return data, version_of(session, headers)


async def get_range(session: GcsSession, key: str, part: Range, version: Version, pace: RateLimit, sink: Sink) -> None:
    """Download a range of exactly this generation of an object into `sink`.

    Raises:
        ObjectNotFoundError: This generation is no longer there.
        TransientError: The connection broke, or bytes are missing; `sink` has received the bytes before that.
    """
    wanted = {"Range": f"bytes={part.start}-{part.end - 1}"}
    _, arrived = await session.download(
        "fetch", key, sink, pace=pace, headers=wanted, limit=part.size, generation=str(version)
    )
    if arrived != part.size:
        raise TransientError(f"Cannot fetch {session.name(key)}: {arrived} of {part.size} bytes arrived.")


async def compose(
    session: GcsSession,
    key: str,
    sources: Sequence[ObjectInfo],
    expect: Version | Expect,
    owner: str | None = None,
) -> ObjectInfo:
    """Join up to `MOST_SOURCES` objects into an object, on condition of the sources' versions and of `expect`.

    Raises:
        PreconditionFailedError: A source has changed, or the object under `key` is not as expected.
        ObjectNotFoundError: A source is gone.
    """
    wanted = {
        "sourceObjects": [
            {
                "name": session.prefix + source.key,
                "generation": str(source.version),
                "objectPreconditions": {"ifGenerationMatch": str(source.version)},
            }
            for source in sources
        ],
        "destination": {"contentType": "application/octet-stream", **_owned_by(owner)},
    }
    path = f"{session.object_path(key)}/compose"
    return as_object(session, await session.call("POST", path, "create", key, json_body=wanted, **condition(expect)))


async def rewrite(session: GcsSession, source: ObjectInfo, target: str) -> ObjectInfo:
    """Copy an object inside the service, over `target`; a large object may take several requests.

    `target` changes with the last request, in one step.
    """
    path = f"{session.object_path(source.key)}/rewriteTo{session.object_path(target).removeprefix('/storage/v1')}"
    token: dict[str, str] = {}
    while True:
        # On condition of the generation: another process may replace the source between the requests.
        answer = await session.call(
            "POST", path, "copy to", target, ifSourceGenerationMatch=str(source.version), **token
        )
        if answer.get("done", True):
            return as_object(session, answer["resource"])
        token = {"rewriteToken": str(answer["rewriteToken"])}


async def delete(session: GcsSession, key: str, version: Version | None = None) -> None:
    """Delete an object, or only the generation `version` of the object; a missing object counts as deleted.

    Raises:
        PreconditionFailedError: The object has another generation.
    """
    query = {} if version is None else {"ifGenerationMatch": str(version)}
    try:
        await session.call("DELETE", session.object_path(key), "delete", key, **query)
    except ObjectNotFoundError:  # deleted before, perhaps by an earlier request of ours whose answer was lost
        return


async def list_page(session: GcsSession, prefix: str, token: str) -> tuple[list[ObjectInfo], str]:
    """Return a page of a listing, and the token of the next page; an empty token at the end."""
    more = {"pageToken": token} if token else {}
    answer = await session.call("GET", session.bucket_path, "list", "", prefix=session.prefix + prefix, **more)
    found = (item for item in answer.get("items", ()) if not str(item.get("name", "")).endswith("/"))
    items = [as_object(session, item) for item in found]
    return items, str(answer.get("nextPageToken") or "")
