"""Give up on stalled requests: neither aiohttp nor the system does so when the peer stops reading."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from remote_ckpt.errors import TransientError

T = TypeVar("T")

STALL_TIMEOUT = 60.0  # seconds


async def stop_if_stalled(
    request: Coroutine[Any, Any, T], moved: Callable[[], int], what: str, patience: float = STALL_TIMEOUT
) -> T:
    """Await `request`, and give up if `moved()` has not grown for `patience` seconds.

    `moved()` is looked at every `patience` seconds, so giving up may take twice as long.

    Raises:
        TransientError: Nothing moved; the request was cancelled, and may still have been carried out.
    """
    task = asyncio.ensure_future(request)
    before = -1
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=patience)
            if done:
                return task.result()
            now = moved()
            if now == before:
                raise TransientError(f"Cannot send {what}: no byte has moved for {patience:.0f} s.")
            before = now
    finally:
        if not task.done():  # given up, or this coroutine was cancelled: the request must not go on without a waiter
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
