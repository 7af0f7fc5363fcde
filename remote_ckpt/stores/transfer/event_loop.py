"""Run coroutines on fsspec's shared event loop, from any other thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_CANCEL_TIMEOUT = 10.0  # seconds for cancelled work to clean up


def run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on `loop` from another thread, wait, and return the result.

    If the waiting thread is interrupted, for example by Ctrl-C, the work is cancelled, and this waits up to ten seconds
    while the work cleans up. (`fsspec.asyn.sync` would leave the work running.)

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
    except BaseException:  # the work's own error, or an interrupt of this thread (KeyboardInterrupt)
        if not future.done():
            future.cancel()
            finished.wait(
                _CANCEL_TIMEOUT
            )  # cancelled work still aborts uploads, and uses descriptors that the caller closes
        raise


def is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether the current thread runs `loop`; waiting here for work on the loop would then never end."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:  # no loop runs in this thread
        return False
