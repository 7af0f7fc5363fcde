"""What everything about one upload needs: the file, the key, and how work is repeated and counted."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from remote_ckpt import retry
from remote_ckpt.retry import RetryPolicy
from remote_ckpt.stores.base import Base, Digests, Journal, ObjectInfo, Progress, Transfer, TransferReport
from remote_ckpt.stores.engine.body import InFile, PartBody
from remote_ckpt.stores.engine.disk import Disk, crc32c_of
from remote_ckpt.stores.engine.pace import Pace
from remote_ckpt.stores.engine.plan import Range
from remote_ckpt.stores.engine.watch import watch
from remote_ckpt.stores.engine.window import Window

T = TypeVar("T")


@dataclass(kw_only=True)
class Job:
    """The upload of one file to one key. Its methods run on the event loop, disk and checksums in threads.

    Attributes:
        url: The object's URL for messages.
        fd: The open source.
        owner: Whose the object will be; None: nobody asks.
        owners_last: Whether the service is known to keep an object's owner.
        window: How many parts may be under way; narrowed here when something has to be repeated.
    """

    disk: Disk
    pace: Pace
    transfer: Transfer
    key: str
    url: str
    source: Path
    fd: int
    digests: Digests
    journal: Journal
    report: TransferReport
    base: Base | None
    progress: Progress | None
    owner: str | None = None
    owners_last: bool = False
    window: Window = field(default_factory=lambda: Window(1))
    _started: float = field(default_factory=time.monotonic)

    async def retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat a request after transient errors, lost answers included, while the upload's time lasts."""

        async def once() -> T:
            return await attempt()

        left = self.transfer.deadline - (time.monotonic() - self._started)
        return await retry.call_async(once, RetryPolicy(deadline=max(0.0, left)), on_retry=self._count)

    async def crc32c(self, part: Range) -> int:
        """Return the crc32c of a part, read now: what rots on the disk later is refused by the service."""
        return await self.disk.do(partial(crc32c_of, self.fd, part))

    def body(self, part: Range) -> PartBody:
        """Return a part's bytes, ready for sending; they are read when they are sent."""
        return PartBody(InFile(self.fd, part, self.disk), self.pace)

    async def counted(self, request: Coroutine[Any, Any, T], body: PartBody) -> T:
        """Await a request that sends `body`; what crossed the network is counted even if it fails."""
        before = body.moved
        try:
            return await watch(request, lambda: body.moved, self.url)
        finally:
            self.report.sent += body.moved - before

    def is_ours(self, found: ObjectInfo) -> bool:
        """Return whether an object with our bytes may be what an earlier request of this upload made."""
        if self.owner is None or found.owner == self.owner:
            return True
        return found.owner is None and not self.owners_last

    def tell(self, size: int) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(size)

    def _count(self, _: BaseException) -> None:
        self.report.retries += 1
        self.window.throttled()
