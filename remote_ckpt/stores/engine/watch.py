"""Requests that stand still: neither aiohttp nor the system gives up on a peer that stops reading."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from remote_ckpt.errors import TransientError

T = TypeVar("T")

PATIENCE = 60.0  # seconds


async def watch(request: Coroutine[Any, Any, T], moved: Callable[[], int], what: str, patience: float = PATIENCE) -> T:
    """Await `request`, and give up when `moved()` has not grown for `patience` seconds.

    Raises:
        TransientError: Nothing moved; the request was cancelled.
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
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
