"""A limit on bytes per second, shared by all transfers of a store."""

from __future__ import annotations

import asyncio
import time

_BURST = 0.1  # seconds


class RateLimit:
    """A limit of `rate` bytes per second, without long bursts; no limit if None. For a single event loop only."""

    def __init__(self, rate: float | None) -> None:
        """Take bytes per second; None for no limit."""
        self._rate = rate
        self._free_at = 0.0

    async def spend(self, size: int) -> None:
        """Wait until `size` more bytes may pass."""
        if self._rate is None:
            return
        # No `await` between reading and writing `_free_at`: otherwise two coroutines could take the same slot of time.
        now = time.monotonic()
        self._free_at = max(self._free_at, now - _BURST) + size / self._rate
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)
