"""From any thread to the event loop that all fsspec filesystems share, and back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_PATIENCE = 10.0  # seconds for cancelled requests to say goodbye


def run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on `loop` from another thread and return its result.

    If the waiting thread is interrupted, by Ctrl-C say, the work is cancelled and given a few seconds to clean up; it
    never goes on unwatched. (`fsspec.asyn.sync` would let it.)

    Raises:
        RuntimeError: Called from the loop's own thread, which would wait for itself.
    """
    if is_running(loop):
        work.close()
        raise RuntimeError("A store was used from within fsspec's event loop; use it from a thread of your own.")
    finished = threading.Event()

    async def watched() -> T:
        try:
            return await work
        finally:
            finished.set()

    future = asyncio.run_coroutine_threadsafe(watched(), loop)
    try:
        return future.result()
    except BaseException:
        if not future.done():
            future.cancel()
            finished.wait(_PATIENCE)
        raise


def is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether this very thread is running `loop`, and must not wait for it."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
