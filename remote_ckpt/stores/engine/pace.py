"""A limit on bytes per second, shared by all transfers of a store."""

from __future__ import annotations

import asyncio
import time

_BURST = 0.1  # seconds


class Pace:
    """Lets `rate` bytes a second through, evenly; everything, when `rate` is None. Use it on one event loop."""

    def __init__(self, rate: float | None) -> None:
        """Take bytes per second."""
        self._rate = rate
        self._free_at = 0.0

    async def spend(self, size: int) -> None:
        """Return when `size` more bytes may pass."""
        if self._rate is None:
            return
        now = time.monotonic()
        self._free_at = max(self._free_at, now - _BURST) + size / self._rate
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)
