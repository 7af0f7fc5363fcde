"""Download ranges of an object in parallel into a local file."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from remote_ckpt import retry
from remote_ckpt.errors import InvalidRequestError, PreconditionFailedError, SpoolError, SpoolFullError
from remote_ckpt.stores.base import MIB, Landing, ObjectInfo, Progress, Transfer, Version
from remote_ckpt.stores.byte_ranges import Span
from remote_ckpt.stores.transfer.answers import ANSWER_TIMEOUT, NoStoreError
from remote_ckpt.stores.transfer.concurrency import ConcurrencyWindow, slide
from remote_ckpt.stores.transfer.file_io import FileIO, write_range
from remote_ckpt.stores.transfer.part_plan import Range, plan_download
from remote_ckpt.stores.transfer.rate_limit import RateLimit

Sink = Callable[[Sequence[bytes]], Awaitable[None]]
"""Takes the next pieces of a range, and returns when the pieces are written."""

Get = Callable[[Range, Sink], Awaitable[None]]
"""Gives exactly the bytes of a range to a sink, always from the same version of the object."""

_TRICKLE = 512  # bytes per second; even when 64 ranges share the slowest usable link, each is faster than this
_BATCH = MIB  # bytes: large enough for a hand-over to a thread, small enough for the memory to be used again at once


@dataclass(frozen=True)
class Download:
    """A download of an object into a local file, in ranges; the fields are the arguments of `ObjectStore.fetch`."""

    target: Path
    size: int
    disk: FileIO
    transfer: Transfer
    progress: Progress | None
    landing: Landing | None

    async def run(self, info: ObjectInfo, get: Get, url: str, *, round_trip: float = math.inf) -> None:
        """Download the missing ranges into the target; the file has the full size from the start.

        Ranges begin in order, so that the beginning of the file is complete early. After a transient error a range
        continues at the first missing byte.

        Args:
            info: The object as it is now.
            get: Fetches a range of exactly this version.
            url: The object's URL for messages.
            round_trip: Seconds of the quickest small request so far.

        Raises:
            PreconditionFailedError: The object has another size.
            SpoolError: The local file cannot be written.
            StoreError: The last error of `get`, when retrying did not help.
        """
        if info.size != self.size:
            raise PreconditionFailedError(
                f"Cannot fetch {url}: it has {info.size} bytes instead of {self.size}; it was replaced."
            )
        fd, missing = await self.disk.do(partial(self._open, info.version))
        plan = plan_download(missing, self.transfer, round_trip=round_trip)
        window = ConcurrencyWindow(plan.width)
        try:
            await slide((partial(self._fetch, part, fd, get, url, window) for part in plan.parts), window)
        finally:
            os.close(
                fd
            )  # `slide` has waited for all its jobs, and `FileIO.do` for its threads: nothing writes any more

    async def _fetch(self, part: Range, fd: int, get: Get, url: str, window: ConcurrencyWindow) -> None:
        at = part.start

        async def write(pieces: Sequence[bytes]) -> None:
            nonlocal at
            end = at + sum(map(len, pieces))
            if end > part.end:  # a server that ignores Range, for example; the bytes would overwrite the next range
                raise InvalidRequestError(f"Cannot fetch {url}: more bytes came than were asked for.")
            await self.disk.do(partial(self._write, fd, pieces, at, end))
            size, at = end - at, end
            if self.progress is not None:
                self.progress(size)

        async def once() -> None:
            if at < part.end:  # an error after the last byte leaves nothing to fetch
                await get(Range(part.number, at, part.end), write)

        await retry.call_async(once, self.transfer.retry, on_retry=lambda _: window.throttled())
        window.succeeded()

    def _open(self, version: Version) -> tuple[int, list[Span]]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            if self.landing is None:
                flags, missing = flags | os.O_TRUNC, [(0, self.size)]
            else:
                missing = self.landing.missing(version)
            fd = os.open(self.target, flags, 0o600)
            try:
                _reserve(fd, self.size)
            except OSError:
                os.close(fd)  # the caller gets no descriptor to close
                raise
        except OSError as exc:
            raise _local(exc, self.target) from exc
        return fd, missing

    def _write(self, fd: int, pieces: Sequence[bytes], start: int, end: int) -> None:
        try:
            write_range(fd, pieces, start)
            if self.landing is not None:  # after the write: a crash in between costs a second download, no wrong bytes
                self.landing.landed(start, end)
        except OSError as exc:
            raise _local(exc, self.target) from exc


async def pour(chunks: AsyncIterable[bytes], sink: Sink, pace: RateLimit, limit: int) -> int:
    """Give chunks to `sink` as they arrive, in batches, at a limited rate; return the number of bytes.

    Raises:
        NoStoreError: There are more than `limit` bytes. The sink gets none of the bytes beyond the limit.
        asyncio.TimeoutError: Over a minute of waiting, fewer than 512 bytes a second arrived.
    """
    total, waiting, pieces = 0, 0, list[bytes]()
    async for chunk in _in_time(chunks):
        if total + len(chunk) > limit:
            raise NoStoreError(f"more than {limit} bytes came")
        await pace.spend(len(chunk))
        pieces.append(chunk)
        total, waiting = total + len(chunk), waiting + len(chunk)
        if waiting >= _BATCH:
            await sink(pieces)
            waiting, pieces = 0, []
    if pieces:
        await sink(pieces)
    return total


async def _in_time(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield chunks while bytes arrive fast enough; only the time spent waiting for chunks counts.

    The timeout of aiohttp's session is for a single read: a server that sends a byte now and then would never exceed
    that timeout.
    """
    iterator, waited, came = aiter(chunks), 0.0, 0
    while True:
        begun = time.monotonic()
        try:
            chunk = await anext(iterator)
        except StopAsyncIteration:
            return
        waited, came = waited + time.monotonic() - begun, came + len(chunk)
        if waited > ANSWER_TIMEOUT:
            if came < _TRICKLE * waited:
                raise asyncio.TimeoutError(f"{came} bytes came in {waited:.0f} s")
            waited, came = 0.0, 0
        yield chunk


def collect(pieces: list[bytes]) -> Sink:
    """Return a sink for keeping all bytes in `pieces`."""

    async def keep(more: Sequence[bytes]) -> None:
        pieces.extend(more)

    return keep


def _reserve(fd: int, size: int) -> None:
    """Reserve the file's disk space, so a full disk raises before the first byte crosses the network."""
    os.ftruncate(fd, size)
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as exc:  # other errors: this filesystem cannot reserve; a full disk is then found while writing
            if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise


def _local(error: OSError, target: Path) -> SpoolError:
    kind = SpoolFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else SpoolError
    return kind(f"Cannot write {target}: {error.strerror}. Free some space there, or choose another folder.")
