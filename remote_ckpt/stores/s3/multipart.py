"""An object made of parts: begun or resumed, its parts copied or sent in a sliding window, completed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

from remote_ckpt.errors import (
    AccessDeniedError,
    CredentialsExpiredError,
    InvalidRequestError,
    ObjectNotFoundError,
    PreconditionFailedError,
    TransientError,
)
from remote_ckpt.stores.base import MIB, MemoryJournal, ObjectInfo
from remote_ckpt.stores.checksums import combine
from remote_ckpt.stores.engine.body import PartBody
from remote_ckpt.stores.engine.plan import Plan, Range, make_plan
from remote_ckpt.stores.engine.window import Window, slide
from remote_ckpt.stores.s3 import delta, presence, uploads
from remote_ckpt.stores.s3.errors import code_of
from remote_ckpt.stores.s3.job import S3Job
from remote_ckpt.stores.sources import require_match

_SMALLEST = 5 * MIB  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_GOODBYE = 20.0  # seconds


class Multipart:
    """One multipart upload. The journal names it before its first part is sent, so that a later process finds it."""

    def __init__(self, job: S3Job) -> None:
        """Prepare; nothing is sent yet."""
        self._job = job
        self._session = job.session
        self._id = ""
        self._listed: dict[int, dict[str, Any]] = {}
        self._source: delta.Source | None = None
        self._etags: dict[int, str] = {}
        self._crcs: dict[int, int] = {}
        self._proven = True

    async def run(self) -> ObjectInfo:
        """Bring all parts there, and complete.

        After an error that a later call can do something about, the parts stay, and the journal names them. After any
        other the upload is aborted.
        """
        job = self._job
        plan = await self._begin()
        job.window = Window(plan.width)
        try:
            await slide((partial(self._part, part) for part in self._in_order(plan)), job.window)
            require_match(job.source, job.digests, plan.size, self._crc32c(plan))
            present = await self._complete(plan)
        except BaseException as exc:
            if self._is_final(exc):
                await asyncio.shield(self._give_up())
            raise
        return present or await presence.verify(job, proven=self._proven)

    async def _begin(self) -> Plan:
        """Go on with the upload that the journal names, or begin one and note it."""
        job = self._job
        self._source = await delta.find_source(self._session, job.base, job.digests)
        plan = make_plan(job.digests.size, job.transfer, smallest=_SMALLEST, aligned=self._source is not None)
        identity = {
            "bucket": self._session.bucket,
            "key": self._session.prefix + job.key,
            "size": job.digests.size,
            "crc32c": job.digests.crc32c,
        }
        notes = await job.disk.do(job.journal.load)
        if all(notes.get(name) == value for name, value in identity.items()) and await self._resume(notes):
            part_size = int(notes["part_size"])
            return Plan(plan.size, part_size, max(1, min(plan.width, job.transfer.memory // part_size)))
        self._id = await job.retry(lambda: uploads.begin(self._session, job.key))
        await self._note({**identity, "upload_id": self._id, "part_size": plan.part_size})
        return plan

    async def _resume(self, notes: dict[str, Any]) -> bool:
        """Find the parts of an earlier attempt; return False if the service has forgotten them."""
        upload_id, part_size = notes.get("upload_id"), notes.get("part_size")
        if not isinstance(upload_id, str) or not isinstance(part_size, int) or part_size < _SMALLEST:
            return False
        try:
            self._listed = await self._job.retry(lambda: uploads.parts_of(self._session, self._job.key, upload_id))
        except (ObjectNotFoundError, InvalidRequestError):
            return False
        self._id = upload_id
        return True

    def _in_order(self, plan: Plan) -> list[Range]:
        """Return the parts to send first: while they are under way, the service copies the others."""
        source = self._source
        return sorted(plan, key=source.holds) if source is not None else list(plan)

    async def _part(self, part: Range) -> None:
        """Bring one part there: it is there already, or is copied inside the store, or sent."""
        job = self._job
        crc, body = await job.crc32c(part), job.body(part)
        etag = await self._found(part, body, crc) or await self._copied(part, body, crc)
        if etag is None:
            etag = await job.retry(lambda: self._sent(part, body, crc))
        else:
            job.report.reused += part.size
        self._crcs[part.number], self._etags[part.number] = crc, etag
        job.window.succeeded()
        job.tell(part.size)

    async def _found(self, part: Range, body: PartBody, crc: int) -> str | None:
        listed = self._listed.get(part.number)
        if listed is None or int(listed["Size"]) != part.size or not await self._job.agrees(listed, body, crc):
            return None
        return str(listed["ETag"])

    async def _copied(self, part: Range, body: PartBody, crc: int) -> str | None:
        source, job = self._source, self._job
        if source is None or not source.holds(part):
            return None
        arguments = {
            "UploadId": self._id,
            "PartNumber": part.number,
            "CopySource": {"Bucket": self._session.bucket, "Key": self._session.prefix + source.key},
            "CopySourceRange": f"bytes={part.start}-{part.end - 1}",
            "CopySourceIfMatch": str(source.version),
        }
        try:
            answer = await job.retry(
                lambda: self._session.call("upload_part_copy", "copy a part to", job.key, **arguments)
            )
        except (PreconditionFailedError, ObjectNotFoundError, InvalidRequestError, AccessDeniedError) as exc:
            if code_of(exc) == "NoSuchUpload":
                raise
            self._source = None  # the base is gone or changed, or this server cannot copy ranges: send the rest
            return None
        result = answer.get("CopyPartResult", {})
        return str(result["ETag"]) if await job.agrees(result, body, crc) else None

    async def _sent(self, part: Range, body: PartBody, crc: int) -> str:
        job = self._job
        answer = await job.send("upload_part", body, crc, UploadId=self._id, PartNumber=part.number)
        agreed = await job.agrees(answer, body, crc)
        if agreed is False:
            raise TransientError(f"Part {part.number} of {job.url} arrived damaged.")
        self._proven = self._proven and agreed is True
        return str(answer["ETag"])

    async def _complete(self, plan: Plan) -> ObjectInfo | None:
        """Make the object of its parts; return it if an earlier request turns out to have done so."""
        job = self._job
        etags = [self._etags[part.number] for part in plan]
        crc = job.digests.crc32c
        try:
            await job.retry(
                lambda: uploads.complete(self._session, job.key, self._id, etags, crc=crc, create_only=True)
            )
        except (PreconditionFailedError, ObjectNotFoundError) as exc:
            present = await presence.resolve(job, exc)
            await self._give_up()  # where it was refused, the parts are still there
            return present
        return None

    def _crc32c(self, plan: Plan) -> int:
        total = 0
        for part in plan:
            total = combine(total, self._crcs[part.number], part.size)
        return total

    def _is_final(self, error: BaseException) -> bool:
        """Return whether nobody will go on with these parts."""
        if isinstance(self._job.journal, MemoryJournal):
            return True
        return not isinstance(error, (TransientError, CredentialsExpiredError, asyncio.CancelledError))

    async def _give_up(self) -> None:
        """Abort the upload, so that nobody pays for its parts, and forget it."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(uploads.abort(self._session, self._job.key, self._id), _GOODBYE)
        await self._note({})

    async def _note(self, notes: dict[str, Any]) -> None:
        await self._job.disk.do(partial(self._job.journal.save, notes))
