"""Requests about multipart uploads: begin, list, complete, abort, sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

from remote_ckpt.errors import AccessDeniedError, InvalidRequestError, ObjectNotFoundError, StoreError
from remote_ckpt.stores.s3.session import S3Session


async def begin(session: S3Session, key: str, *, owner: str | None = None) -> str:
    """Begin a multipart upload and return the id; ask for a crc32c of the whole object where the service can.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
    """
    owned = session.owned_by(owner)
    if session.crc32c:
        checksum = {"ChecksumAlgorithm": "CRC32C", "ChecksumType": "FULL_OBJECT"}
        try:
            answer = await session.call("create_multipart_upload", "create", key, **checksum, **owned)
        except InvalidRequestError:  # servers without crc32c refuse so
            answer = await session.call("create_multipart_upload", "create", key, **owned)
            session.crc32c = False  # only now: the same request without the checksum succeeded
    else:
        answer = await session.call("create_multipart_upload", "create", key, **owned)
    return str(answer["UploadId"])


async def parts_of(session: S3Session, key: str, upload_id: str) -> dict[int, dict[str, Any]]:
    """Return the parts of an unfinished upload in the service, by part number.

    Raises:
        ObjectNotFoundError: The upload does not exist, or no longer exists.
    """
    found: dict[int, dict[str, Any]] = {}
    marker = 0
    while True:
        answer = await session.call(
            "list_parts", "resume the upload of", key, UploadId=upload_id, PartNumberMarker=marker
        )
        found.update((int(part["PartNumber"]), part) for part in answer.get("Parts", ()))
        following = int(answer.get("NextPartNumberMarker") or 0)
        if not answer.get("IsTruncated") or following <= marker:  # a marker that stands still would loop for ever
            return found
        marker = following


async def complete(
    session: S3Session, key: str, upload_id: str, etags: Iterable[str], *, crc: str | None, create_only: bool
) -> None:
    """Complete an upload: the parts become an object in a single step.

    Raises:
        PreconditionFailedError: The key is taken; the upload and its parts still exist.
        ObjectNotFoundError: The upload no longer exists: it was completed by an earlier request whose answer was lost,
            or aborted.
        OutcomeUnknownError: The answer was lost; the object may exist.
    """
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    arguments: dict[str, Any] = {"IfNoneMatch": "*"} if create_only else {}
    if crc is not None and session.crc32c:
        arguments |= {"ChecksumCRC32C": crc, "ChecksumType": "FULL_OBJECT"}
    await session.call(
        "complete_multipart_upload", "create", key, UploadId=upload_id, MultipartUpload={"Parts": parts}, **arguments
    )


async def abort(session: S3Session, key: str, upload_id: str) -> None:
    """Abort an upload, so that nobody pays for its parts; raise no `StoreError`."""
    with suppress(StoreError):  # a sweep will abort the upload later
        await session.call("abort_multipart_upload", "abort the upload of", key, UploadId=upload_id)


async def sweep(session: S3Session, oldest: datetime, ours: Callable[[str], bool], *, dry_run: bool) -> list[str]:
    """Abort our uploads under the run's prefix, if they began before `oldest` and got no part since then.

    Returns:
        The keys of the aborted uploads; with `dry_run`, of the uploads that would be aborted.
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
            with suppress(ObjectNotFoundError):  # its writer, or another sweep, finished between listing and abort
                await session.call("abort_multipart_upload", "abort the upload of", key, UploadId=upload_id)
        swept.append(key)
    return swept


async def _goes_on(session: S3Session, key: str, upload_id: str, oldest: datetime) -> bool:
    """Return whether a part arrived after `oldest`: an upload of days ago may have been resumed a minute ago."""
    try:
        parts = await parts_of(session, key, upload_id)
    except ObjectNotFoundError:  # its writer finished between the listing and this request: nothing to abort
        return True
    except (InvalidRequestError, AccessDeniedError):  # parts cannot be listed: the time of the beginning alone decides
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
        # A marker that is empty or stands still would make this loop endless.
        if not answer.get("IsTruncated") or following == marker or not following["KeyMarker"]:
            return found
        marker = following
