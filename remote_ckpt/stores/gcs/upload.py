"""Upload a file as an object of GCS: find the object there, insert the file in one request, or compose components."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from remote_ckpt.errors import (
    AccessDeniedError,
    CredentialsExpiredError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreError,
    TransientError,
)
from remote_ckpt.stores.base import MIB, Expect, MemoryJournal, ObjectInfo
from remote_ckpt.stores.checksums import combine, encode
from remote_ckpt.stores.gcs import components, objects
from remote_ckpt.stores.gcs.session import GcsSession
from remote_ckpt.stores.sources import require_match
from remote_ckpt.stores.transfer.concurrency import ConcurrencyWindow, slide
from remote_ckpt.stores.transfer.part_plan import PartPlan, Range, evenly, plan_upload
from remote_ckpt.stores.transfer.request_body import InFile
from remote_ckpt.stores.transfer.upload_context import UploadContext

_SINGLE = 8 * MIB
_TRIFLE = MIB  # up to here sending it is quicker than having it copied
_SMALLEST = MIB
_GOODBYE = 30.0  # seconds


@dataclass(kw_only=True)
class GcsUploadContext(UploadContext):
    """The upload of a file to a key of GCS."""

    session: GcsSession


async def upload(job: GcsUploadContext) -> ObjectInfo:
    """Create the object from the file; see `ObjectStore.upload`."""
    single = job.digests.size <= _SINGLE
    present = None if single else await _look(job)
    if present is not None:
        return _accept(job, present)
    return await _copy_base(job) or await (_insert(job) if single else _Composition(job).run())


async def _insert(job: GcsUploadContext) -> ObjectInfo:
    whole = Range(1, 0, job.digests.size)
    crc = await job.crc32c(whole)
    require_match(job.source, job.digests, whole.size, crc)
    try:
        info = await job.retry(lambda: _send(job, job.key, whole, crc, Expect.ABSENT, job.owner))
    except PreconditionFailedError as exc:  # another writer's object; or our own earlier request, its answer lost
        return await _resolve(job, exc)
    job.tell(info.size)
    return await _verified(job, info)


async def _send(
    job: GcsUploadContext, key: str, part: Range, crc: int, expect: Expect, owner: str | None = None
) -> ObjectInfo:
    content = InFile(job.fd, part, job.disk)
    body, kind = objects.enclose(job.session, key, content, encode(crc), job.pace, owner)
    request = job.session.send(body, kind, "create", key, **objects.condition(expect))
    return objects.as_object(job.session, await job.counted(request, body))


async def _copy_base(job: GcsUploadContext) -> ObjectInfo | None:
    """Copy the base as a whole if its bytes are exactly those of the file; GCS copies no ranges.

    Return None if nothing was copied, or if the answer was lost: the file is then sent.
    """
    base = job.base
    if base is None or base.digests.sha256 != job.digests.sha256 or job.digests.size <= _TRIFLE:
        return None
    try:
        source = await objects.look(job.session, base.key)
        if (source.size, source.crc32c) != (job.digests.size, job.digests.crc32c):
            return None
        info = await objects.compose(job.session, job.key, [source], Expect.ABSENT, job.owner)
    except PreconditionFailedError as exc:  # the key is taken, or the base has changed since the look
        return await _resolve(job, exc)
    except StoreError:
        return None  # a copy only saves time; the file can be sent instead
    job.report.reused += info.size
    job.tell(info.size)
    return await _verified(job, info)


class _Composition:
    """An upload in components. The journal names their folder before the first component is sent."""

    def __init__(self, job: GcsUploadContext) -> None:
        self._job = job
        self._session = job.session
        self._id = uuid.uuid4().hex
        self._present: dict[str, ObjectInfo] = {}
        self._parts: dict[int, ObjectInfo] = {}
        self._crcs: dict[int, int] = {}

    async def run(self) -> ObjectInfo:
        """Send the components, compose the object, and delete the components.

        After a transient error, expired credentials or a cancellation, the components stay and the journal names their
        folder, so that a later call resumes. After any other error, or with a `MemoryJournal`, they are deleted.
        """
        job = self._job
        plan = await self._begin()
        job.window = ConcurrencyWindow(plan.width, plan.widest)
        try:
            await slide((partial(self._part, part) for part in plan.parts), job.window)
            require_match(job.source, job.digests, plan.size, self._crc32c(plan))
            info = await self._compose(plan)
        except BaseException as exc:
            if self._is_final(exc):
                # Shielded: a second cancellation must not stop the deletion; components that stay cost money.
                await asyncio.shield(self._clean())
            raise
        await self._clean()
        return info

    async def _begin(self) -> PartPlan:
        """Resume with the components in the journal, or choose a new folder and save the name in the journal."""
        job = self._job
        plan = plan_upload(job.digests.size, job.transfer, smallest=_SMALLEST)
        identity: dict[str, Any] = {
            "bucket": self._session.bucket,
            "key": self._session.prefix + job.key,
            "size": job.digests.size,
            "crc32c": job.digests.crc32c,
        }
        notes = await job.disk.do(job.journal.load)  # an earlier process may have been killed in the middle
        earlier, part_size = notes.get("components"), notes.get("part_size")
        same = all(notes.get(name) == value for name, value in identity.items())
        if same and isinstance(earlier, str) and isinstance(part_size, int) and part_size >= _SMALLEST:
            self._id = earlier
            found = await job.retry(lambda: components.listed(self._session, components.folder_of(earlier)))
            self._present = {info.key: info for info in found}
            return replace(plan, parts=evenly(job.digests.size, part_size))
        # Before the first component: a process killed later leaves nothing that its successor does not find.
        await self._note({**identity, "components": self._id, "part_size": plan.parts[0].size})
        return plan

    async def _part(self, part: Range) -> None:
        """Send a component, unless an earlier attempt has sent the same bytes."""
        job = self._job
        key = f"{components.folder_of(self._id)}part-{part.number:05d}"
        crc = await job.crc32c(part)
        info = self._present.get(key)
        if info is not None and (info.size, info.crc32c) == (part.size, encode(crc)):
            job.report.reused += part.size
        else:
            info = await job.retry(lambda: _send(job, key, part, crc, Expect.ANYTHING))
            if info.crc32c not in (None, encode(crc)):
                raise TransientError(f"Part {part.number} of {job.url} arrived damaged.")
        self._parts[part.number], self._crcs[part.number] = info, crc
        job.window.succeeded(part.size)
        job.tell(part.size)

    async def _compose(self, plan: PartPlan) -> ObjectInfo:
        job = self._job
        parts = [self._parts[part.number] for part in plan.parts]
        sources = await job.retry(lambda: components.reduce(self._session, self._id, parts))
        try:
            info = await job.retry(lambda: objects.compose(self._session, job.key, sources, Expect.ABSENT, job.owner))
        except (PreconditionFailedError, ObjectNotFoundError) as exc:
            # Either another writer has the key, or an earlier request of ours succeeded and its answer was lost, or a
            # sweep has deleted components.
            return await _resolve(job, exc)
        return await _verified(job, info)

    def _crc32c(self, plan: PartPlan) -> int:
        total = 0
        for part in plan.parts:
            total = combine(total, self._crcs[part.number], part.size)
        return total

    def _is_final(self, error: BaseException) -> bool:
        """Return whether no later call can resume with these components after `error`."""
        if isinstance(self._job.journal, MemoryJournal):
            return True
        return not isinstance(error, (TransientError, CredentialsExpiredError, asyncio.CancelledError))

    async def _clean(self) -> None:
        """Delete all components, also those of earlier attempts, and empty the journal."""
        with suppress(asyncio.TimeoutError, StoreError):  # a later sweep deletes the rest
            await asyncio.wait_for(self._remove_all(), _GOODBYE)
        await self._note({})

    async def _remove_all(self) -> None:
        found = await components.listed(self._session, components.folder_of(self._id))
        await components.remove(self._session, found)

    async def _note(self, notes: dict[str, Any]) -> None:
        await self._job.disk.do(partial(self._job.journal.save, notes))


async def _look(job: GcsUploadContext) -> ObjectInfo | None:
    try:
        return await job.retry(lambda: objects.look(job.session, job.key))
    except (ObjectNotFoundError, AccessDeniedError):  # credentials that may only create objects may not look at them
        return None


async def _resolve(job: GcsUploadContext, refused: StoreError) -> ObjectInfo:
    """Return our object if the refusal came from an earlier request of ours: successful, but the answer was lost.

    Raises:
        PreconditionFailedError: Other bytes, or another writer's object, have the key.
        TransientError: No object has the key now, or the credentials may not look. Begin again.
        BucketNotFoundError: The bucket is missing.
    """
    present = await _look(job)
    if present is None:
        await job.session.require_bucket()
        raise TransientError(f"{refused} But nothing has that name now.") from refused
    return _accept(job, present, refused)


def _accept(job: GcsUploadContext, present: ObjectInfo, refused: StoreError | None = None) -> ObjectInfo:
    """Return `present` as our object if bytes and owner are ours; GCS stores the crc32c of every object.

    Raises:
        PreconditionFailedError: The object has other bytes or another owner.
    """
    if not job.is_ours(present):
        raise PreconditionFailedError(f"Cannot create {job.url}: another writer's object has this name.") from refused
    if (present.size, present.crc32c) == (job.digests.size, job.digests.crc32c):
        job.report.reused += present.size
        job.tell(present.size)
        return present
    raise PreconditionFailedError(f"Cannot create {job.url}: other bytes have this name.") from refused


async def _verified(job: GcsUploadContext, info: ObjectInfo) -> ObjectInfo:
    """Compare the finished object with the digests of the file, and return the object.

    Raises:
        TransientError: The object is damaged, and was deleted.
    """
    if (info.size, info.crc32c) == (job.digests.size, job.digests.crc32c):
        return info
    await job.retry(lambda: objects.delete(job.session, job.key, info.version))
    raise TransientError(f"{job.url} arrived damaged and was deleted.")
