"""A sliding window of jobs: the next one starts when any one ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

Job = Callable[[], Awaitable[None]]

_PAYS = 1.1  # how much faster a wider window must be
_GROWS = 1.5


class Window:
    """How many jobs may be under way: more while that makes them faster together, fewer when the service says so."""

    def __init__(self, width: int, widest: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with `width` jobs, and never exceed `widest` (by default as many as at first)."""
        self._most = width
        self._widest = max(width, widest or 0)
        self._width = float(width)
        self._clock = clock
        self._before = (width, 0.0)  # the last width that paid, and its bytes per second
        self._done, self._moved, self._since = 0, 0, clock()

    @property
    def width(self) -> int:
        """The present limit, at least one."""
        return max(1, int(self._width))

    def throttled(self) -> None:
        """Halve the limit, and seek no further: the service asked for it."""
        self._width = max(1.0, self._width / 2)
        self._widest = self._most

    def succeeded(self, size: int = 0) -> None:
        """Take note of a job that moved `size` bytes: narrowed, the window widens by one job for each full window.

        After each window's worth of jobs it also widens for good, as long as the bytes per second have grown with it.
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


async def slide(jobs: Iterable[Job], window: Window) -> None:
    """Run all jobs, as many at once as the window allows; there is no barrier between them.

    `jobs` is consumed as they start. After the first failure, or when cancelled, no new job starts and those under way
    are cancelled and waited for, so that nothing goes on unwatched; then the failure is raised.
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
        for task in running:
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)


async def _some_done(running: set[asyncio.Future[None]]) -> set[asyncio.Future[None]]:
    done, pending = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    failures = [error for task in done if (error := task.exception()) is not None]
    if failures:
        running.difference_update(done)
        raise failures[0]
    return pending
