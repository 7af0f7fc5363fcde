"""Multipart uploads as such: begun, listed, completed, aborted, swept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

from remote_ckpt.errors import AccessDeniedError, InvalidRequestError, ObjectNotFoundError, StoreError
from remote_ckpt.stores.s3.session import S3Session


async def begin(session: S3Session, key: str, *, owner: str | None = None) -> str:
    """Begin a multipart upload and return its id; with a checksum of the whole object where the service knows it.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
    """
    owned = session.owned_by(owner)
    if session.crc32c:
        checksum = {"ChecksumAlgorithm": "CRC32C", "ChecksumType": "FULL_OBJECT"}
        try:
            answer = await session.call("create_multipart_upload", "create", key, **checksum, **owned)
        except InvalidRequestError:
            answer = await session.call("create_multipart_upload", "create", key, **owned)
            session.crc32c = False
    else:
        answer = await session.call("create_multipart_upload", "create", key, **owned)
    return str(answer["UploadId"])


async def parts_of(session: S3Session, key: str, upload_id: str) -> dict[int, dict[str, Any]]:
    """Return what the service holds of an unfinished upload, by part number.

    Raises:
        ObjectNotFoundError: There is no such upload (any more).
    """
    found: dict[int, dict[str, Any]] = {}
    marker = 0
    while True:
        answer = await session.call(
            "list_parts", "resume the upload of", key, UploadId=upload_id, PartNumberMarker=marker
        )
        found.update((int(part["PartNumber"]), part) for part in answer.get("Parts", ()))
        following = int(answer.get("NextPartNumberMarker") or 0)
        if not answer.get("IsTruncated") or following <= marker:
            return found
        marker = following


async def complete(
    session: S3Session, key: str, upload_id: str, etags: Iterable[str], *, crc: str | None, create_only: bool
) -> None:
    """Make the object of its parts, in one step.

    Raises:
        PreconditionFailedError: The key is taken.
        ObjectNotFoundError: There is no such upload: it was completed (by a request whose answer was lost) or aborted.
    """
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    arguments: dict[str, Any] = {"IfNoneMatch": "*"} if create_only else {}
    if crc is not None and session.crc32c:
        arguments |= {"ChecksumCRC32C": crc, "ChecksumType": "FULL_OBJECT"}
    await session.call(
        "complete_multipart_upload", "create", key, UploadId=upload_id, MultipartUpload={"Parts": parts}, **arguments
    )


async def abort(session: S3Session, key: str, upload_id: str) -> None:
    """Give up an upload, so that nobody pays for its parts. What cannot be aborted is left to a sweep."""
    with suppress(StoreError):
        await session.call("abort_multipart_upload", "abort the upload of", key, UploadId=upload_id)


async def sweep(session: S3Session, oldest: datetime, ours: Callable[[str], bool], *, dry_run: bool) -> list[str]:
    """Abort the uploads under the run's prefix that are ours and to which nothing has come since `oldest`.

    Returns:
        Their keys.
    """
    swept = []
    for item in await _unfinished(session):
        key, upload_id = str(item["Key"]), str(item["UploadId"])
        if not key.startswith(session.prefix):  # not every server filters by prefix
            continue
        key = key[len(session.prefix) :]
        if not ours(key) or item["Initiated"] > oldest or await _goes_on(session, key, upload_id, oldest):
            continue
        if not dry_run:
            with suppress(ObjectNotFoundError):  # finished meanwhile
                await session.call("abort_multipart_upload", "abort the upload of", key, UploadId=upload_id)
        swept.append(key)
    return swept


async def _goes_on(session: S3Session, key: str, upload_id: str, oldest: datetime) -> bool:
    """Return whether a part came after `oldest`: an upload of days ago may have been resumed a minute ago."""
    try:
        parts = await parts_of(session, key, upload_id)
    except ObjectNotFoundError:  # finished meanwhile
        return True
    except (InvalidRequestError, AccessDeniedError):  # then its beginning alone decides
        return False
    return any("LastModified" in part and part["LastModified"] > oldest for part in parts.values())


async def _unfinished(session: S3Session) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    marker: dict[str, str] = {}
    while True:
        answer = await session.call("list_multipart_uploads", "sweep", "", Prefix=session.prefix, **marker)
        found += answer.get("Uploads", ())
        following = {
            "KeyMarker": str(answer.get("NextKeyMarker") or ""),
            "UploadIdMarker": str(answer.get("NextUploadIdMarker") or ""),
        }
        if not answer.get("IsTruncated") or following == marker or not following["KeyMarker"]:
            return found
        marker = following
