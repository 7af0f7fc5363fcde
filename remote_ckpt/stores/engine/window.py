"""A sliding window of jobs: the next one starts when any one ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

Job = Callable[[], Awaitable[None]]


class Window:
    """How many jobs may be under way: fewer after the service says "slow down", slowly more again afterwards."""

    def __init__(self, width: int) -> None:
        """Start, and never exceed, `width` jobs."""
        self._most = width
        self._width = float(width)

    @property
    def width(self) -> int:
        """The present limit, at least one."""
        return max(1, int(self._width))

    def throttled(self) -> None:
        """Halve the limit: the service asked for it."""
        self._width = max(1.0, self._width / 2)

    def succeeded(self) -> None:
        """Widen by one job for each full window that succeeded."""
        self._width = min(float(self._most), self._width + 1 / self._width)


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
