"""The context of an upload: the file, the key, retries and counters."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from remote_ckpt import retry
from remote_ckpt.retry import RetryPolicy
from remote_ckpt.stores.base import DeltaBase, Digests, Journal, ObjectInfo, Progress, Transfer, TransferReport
from remote_ckpt.stores.transfer.concurrency import ConcurrencyWindow
from remote_ckpt.stores.transfer.file_io import FileIO, crc32c_of
from remote_ckpt.stores.transfer.part_plan import Range
from remote_ckpt.stores.transfer.rate_limit import RateLimit
from remote_ckpt.stores.transfer.request_body import InFile, PartBody
from remote_ckpt.stores.transfer.stall_timeout import stop_if_stalled

T = TypeVar("T")


@dataclass(kw_only=True)
class UploadContext:
    """The upload of a file to a key. Methods run on the event loop; disk and checksums in threads.

    Attributes:
        url: The object's URL for messages.
        fd: The open source.
        owner: The owner to store with the object; None: an object with equal bytes counts as ours.
        owners_last: Whether a probe has found that the service keeps an object's owner.
        window: How many parts may be under way; narrowed after each request that must be repeated.
    """

    disk: FileIO
    pace: RateLimit
    transfer: Transfer
    key: str
    url: str
    source: Path
    fd: int
    digests: Digests
    journal: Journal
    report: TransferReport
    base: DeltaBase | None
    progress: Progress | None
    owner: str | None = None
    owners_last: bool = False
    window: ConcurrencyWindow = field(default_factory=lambda: ConcurrencyWindow(1))
    _started: float = field(default_factory=time.monotonic)

    async def retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat a request after transient errors, lost answers included, until the upload's deadline."""

        async def once() -> T:
            return await attempt()

        left = self.transfer.deadline - (time.monotonic() - self._started)
        return await retry.call_async(once, RetryPolicy(deadline=max(0.0, left)), on_retry=self._count)

    async def crc32c(self, part: Range) -> int:
        """Return the crc32c of a part, read now: if the bytes on the disk change later, the service refuses them."""
        return await self.disk.do(partial(crc32c_of, self.fd, part))

    def body(self, part: Range) -> PartBody:
        """Return a part's body, ready for sending; the bytes are read during sending."""
        return PartBody(InFile(self.fd, part, self.disk), self.pace)

    async def counted(self, request: Coroutine[Any, Any, T], body: PartBody) -> T:
        """Await a request with `body` as its content; count the sent bytes, also after a failure.

        Raises:
            TransientError: No byte of the body has moved for a minute.
        """
        before = body.moved  # earlier attempts count in `moved` as well
        try:
            return await stop_if_stalled(request, lambda: body.moved, self.url)
        finally:
            self.report.sent += body.moved - before

    def is_ours(self, found: ObjectInfo) -> bool:
        """Return whether an object with our bytes may come from an earlier request of this upload."""
        if self.owner is None or found.owner == self.owner:
            return True
        # The object has no owner. Either the service does not store owners, so equal bytes are enough; or, if a probe
        # found that it stores them, this is not the object of our upload.
        return found.owner is None and not self.owners_last

    def tell(self, size: int) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(size)

    def _count(self, _: BaseException) -> None:
        self.report.retries += 1
        self.window.throttled()
