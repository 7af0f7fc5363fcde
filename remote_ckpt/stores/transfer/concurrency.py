"""A sliding window of jobs: when any job ends, the next job starts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

Job = Callable[[], Awaitable[None]]

_PAYS = 1.1  # how much faster a wider window must be
_GROWS = 1.5


class ConcurrencyWindow:
    """The number of jobs allowed under way: grows while the total speed grows, shrinks after failed requests.

    For one event loop only.
    """

    def __init__(self, width: int, widest: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with `width` jobs, and never allow more than `widest` (by default `width`)."""
        self._most = width
        self._widest = max(width, widest or 0)
        self._width = float(width)
        self._clock = clock
        self._before = (width, 0.0)  # the last width that paid, and its bytes per second
        self._done, self._moved, self._since = 0, 0, clock()

    @property
    def width(self) -> int:
        """The present limit, at least 1."""
        return max(1, int(self._width))

    def throttled(self) -> None:
        """Halve the limit after a failed request; from now on never grow beyond the limit before."""
        self._width = max(1.0, self._width / 2)
        self._widest = self._most

    def succeeded(self, size: int = 0) -> None:
        """Count a finished job of `size` bytes, and widen the window where there is reason to.

        A narrowed window widens by one job for each full window of jobs. Also, after each full window, the limit itself
        grows, as long as the last growth has made the bytes per second grow too.
        """
        self._width = min(float(self._most), self._width + 1 / self._width)
        self._done, self._moved = self._done + 1, self._moved + size
        if self._most < self._widest and self._done >= self._most:
            self._seek(self._moved / max(1e-9, self._clock() - self._since))
            self._done, self._moved, self._since = 0, 0, self._clock()

    def _seek(self, rate: float) -> None:
        width, best = self._before
        if rate > best * _PAYS:
            self._before = (self._most, rate)
            self._most = min(self._widest, int(self._most * _GROWS) + 1)
        else:
            self._most = self._widest = width
        self._width = float(self._most)


async def slide(jobs: Iterable[Job], window: ConcurrencyWindow) -> None:
    """Run all jobs, as many at the same time as the window allows.

    A job starts as soon as another ends; `jobs` is consumed as jobs start. After the first failure, or when cancelled,
    no new job starts, and the jobs under way are cancelled and waited for. Then the first failure is raised.
    """
    running: set[asyncio.Future[None]] = set()
    try:
        for job in jobs:
            while len(running) >= window.width:
                running = await _some_done(running)
            running.add(asyncio.ensure_future(job()))
        while running:
            running = await _some_done(running)
    finally:
        # After a failure the caller closes descriptors and aborts uploads: no job may use them after that.
        for task in running:
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)


async def _some_done(running: set[asyncio.Future[None]]) -> set[asyncio.Future[None]]:
    done, pending = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    failures = [error for task in done if (error := task.exception()) is not None]
    if failures:
        running.difference_update(done)  # the caller's own set: it then cancels only the jobs that still run
        raise failures[0]
    return pending
