"""Upload an object in parts: begin or resume, copy or send the parts in a sliding window, complete."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from remote_ckpt.errors import (
    AccessDeniedError,
    CredentialsExpiredError,
    InvalidRequestError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreError,
    TransientError,
)
from remote_ckpt.stores.base import MemoryJournal, ObjectInfo
from remote_ckpt.stores.checksums import combine
from remote_ckpt.stores.s3 import multipart_requests, presence
from remote_ckpt.stores.s3.delta import COPIES, SMALLEST, Source, plan_delta
from remote_ckpt.stores.s3.errors import code_of, is_damage
from remote_ckpt.stores.s3.upload_context import S3UploadContext
from remote_ckpt.stores.sources import require_match
from remote_ckpt.stores.transfer.concurrency import ConcurrencyWindow, slide
from remote_ckpt.stores.transfer.part_plan import PartPlan, Range, plan_upload, with_lengths
from remote_ckpt.stores.transfer.request_body import PartBody

_GOODBYE = 20.0  # seconds


class CopiedInVainError(Exception):
    """An upload with copied parts failed, and was aborted; an upload of sent parts alone may succeed."""


class Multipart:
    """A multipart upload. The journal has the id before the first part is sent: a later process can resume."""

    def __init__(self, job: S3UploadContext, source: Source | None) -> None:
        """Prepare; nothing is sent yet.

        Args:
            job: The upload.
            source: An object in the store; ranges of it may be copied instead of being sent.
        """
        self._job = job
        self._session = job.session
        self._source = source
        self._id = ""
        self._listed: dict[int, dict[str, Any]] = {}
        self._etags: dict[int, str] = {}
        self._crcs: dict[int, int] = {}
        self._copied_any = False
        self._proven = True

    async def run(self) -> ObjectInfo:
        """Upload or copy all parts, complete the object, compare the checksum, and return the object.

        After a transient error, expired credentials or a cancellation, the parts stay in the store and the journal
        names the upload, so that a later call resumes it. After any other error, or with a `MemoryJournal`, the upload
        is aborted.

        Raises:
            CopiedInVainError: Begin again, without a source.
            PreconditionFailedError: Another object has the key.
            CorruptCheckpointError: The local file is no longer what was sealed; nothing was made of it.
            SpoolError: The local file cannot be read.
            StoreError: A request failed, also after retrying until the upload's deadline where that may help.
        """
        job = self._job
        plan = await self._begin()
        try:
            await self._bring(plan)
            require_match(job.source, job.digests, plan.size, self._crc32c(plan))
            present = await self._complete(plan)
        except BaseException as exc:
            if self._is_final(exc):
                # Shielded: a second cancellation must not stop the abort, or the parts would stay and cost money.
                await asyncio.shield(self._give_up())
            raise
        return present or await self._verified()

    async def _begin(self) -> PartPlan:
        """Resume the upload in the journal, or begin an upload and save the id in the journal."""
        job, size = self._job, self._job.digests.size
        if self._source is None:
            plan = plan_upload(size, job.transfer, smallest=SMALLEST, round_trip=self._session.round_trip)
        else:
            plan = plan_delta(size, self._source, job.transfer, uneven=self._session.uneven_parts)
        identity = {
            "bucket": self._session.bucket,
            "key": self._session.prefix + job.key,
            "size": size,
            "crc32c": job.digests.crc32c,
        }
        notes = await job.disk.do(job.journal.load)  # an earlier process may have been killed in the middle
        if all(notes.get(name) == value for name, value in identity.items()):
            parts = with_lengths(notes.get("parts"), size, smallest=SMALLEST)
            if parts is not None and await self._resume(notes):
                return replace(plan, parts=parts)
        self._id = await job.retry(lambda: multipart_requests.begin(self._session, job.key, owner=job.owner))
        # Before the first part: a process killed later leaves nothing that its successor does not find.
        await self._note({**identity, "upload_id": self._id, "parts": plan.lengths})
        return plan

    async def _resume(self, notes: dict[str, Any]) -> bool:
        """List the parts of an earlier attempt; return False if the service no longer has the upload."""
        upload_id = notes.get("upload_id")
        if not isinstance(upload_id, str):
            return False
        try:
            self._listed = await self._job.retry(
                lambda: multipart_requests.parts_of(self._session, self._job.key, upload_id)
            )
        except (ObjectNotFoundError, InvalidRequestError):  # aborted by a sweep, or completed; or it cannot list parts
            return False
        self._id = upload_id
        return True

    async def _bring(self, plan: PartPlan) -> None:
        """Send the changed parts, and at the same time have the service copy the unchanged parts."""
        window = self._job.window = ConcurrencyWindow(plan.width, plan.widest)
        held = self._source.holds if self._source is not None else lambda _: False
        sent = [partial(self._part, part) for part in plan.parts if not held(part)]
        copied = [partial(self._part, part) for part in plan.parts if held(part)]
        await slide(
            [partial(slide, sent, window), partial(slide, copied, ConcurrencyWindow(COPIES))], ConcurrencyWindow(2)
        )

    async def _part(self, part: Range) -> None:
        """Make a part present in the upload: found there from an earlier attempt, copied in the store, or sent."""
        job = self._job
        crc, body = await job.crc32c(part), job.body(part)
        etag = await self._found(part, body, crc) or await self._copied(part, body, crc)
        if etag is None:
            etag = await job.retry(lambda: self._sent(part, body, crc))
            job.window.succeeded(part.size)
        else:
            job.report.reused += part.size
        self._crcs[part.number], self._etags[part.number] = crc, etag
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
        arguments = {"UploadId": self._id, "PartNumber": part.number, **source.request(self._session, part)}
        try:
            answer = await job.retry(
                lambda: self._session.call("upload_part_copy", "copy a part to", job.key, **arguments)
            )
        except (PreconditionFailedError, ObjectNotFoundError, InvalidRequestError, AccessDeniedError) as exc:
            if code_of(exc) == "NoSuchUpload":  # the upload itself is gone, aborted by a sweep: not the base's fault
                raise
            self._source = None  # the base is gone or changed, or this server cannot copy ranges: send the rest
            return None
        result = answer.get("CopyPartResult", {})
        if not await job.agrees(result, body, crc):  # other bytes, or not proven to be ours: send this part
            return None
        self._copied_any = True
        return str(result["ETag"])

    async def _sent(self, part: Range, body: PartBody, crc: int) -> str:
        job = self._job
        answer = await job.send("upload_part", body, crc, UploadId=self._id, PartNumber=part.number)
        agreed = await job.agrees(answer, body, crc)
        if agreed is False:
            raise TransientError(f"Part {part.number} of {job.url} arrived damaged.")
        self._proven = self._proven and agreed is True
        return str(answer["ETag"])

    async def _complete(self, plan: PartPlan) -> ObjectInfo | None:
        """Make the object of its parts; return the object if an earlier request had already made the object."""
        job = self._job
        etags = [self._etags[part.number] for part in plan.parts]

        async def once() -> None:
            try:
                await multipart_requests.complete(
                    self._session, job.key, self._id, etags, crc=job.digests.crc32c, create_only=True
                )
            except (InvalidRequestError, TransientError) as exc:
                self._suspect_copies(exc)
                raise

        try:
            await job.retry(once)
        except (PreconditionFailedError, ObjectNotFoundError) as exc:
            # Either another writer has the key, or an earlier request of ours succeeded and its answer was lost: the
            # repeated request then finds the key taken (412), or no upload any more (404).
            present = await presence.resolve(job, exc)
            await self._give_up()  # after a 412 the upload and its parts still exist
            return present
        return None

    async def _verified(self) -> ObjectInfo:
        try:
            return await presence.verify(self._job, proven=self._proven)
        except presence.DamagedError as exc:
            self._suspect_copies(exc)
            raise

    def _suspect_copies(self, error: StoreError) -> None:
        """Raise `CopiedInVainError` if copied parts may have caused `error`; else return.

        The copies may be of other bytes, or the server may not accept parts of different sizes.
        """
        if not self._copied_any:
            return
        if isinstance(error, InvalidRequestError):
            self._session.uneven_parts = False
        if isinstance(error, (InvalidRequestError, presence.DamagedError)) or is_damage(error):
            raise CopiedInVainError(str(error)) from error

    def _crc32c(self, plan: PartPlan) -> int:
        total = 0
        for part in plan.parts:
            total = combine(total, self._crcs[part.number], part.size)
        return total

    def _is_final(self, error: BaseException) -> bool:
        """Return whether no later call can resume the upload after `error`."""
        if isinstance(self._job.journal, MemoryJournal):
            return True
        return not isinstance(error, (TransientError, CredentialsExpiredError, asyncio.CancelledError))

    async def _give_up(self) -> None:
        """Abort the upload, so that nobody pays for its parts, and empty the journal."""
        with suppress(asyncio.TimeoutError):  # a sweep will abort the upload later
            await asyncio.wait_for(multipart_requests.abort(self._session, self._job.key, self._id), _GOODBYE)
        await self._note({})

    async def _note(self, notes: dict[str, Any]) -> None:
        await self._job.disk.do(partial(self._job.journal.save, notes))
