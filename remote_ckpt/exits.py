"""Nothing is left behind silently when the interpreter ends.

`atexit` is too late: by then `concurrent.futures` refuses new work, and an upload that needs a fresh connection fails
with exit code 0 (measured with s3fs; s3fs#543). `threading._register_atexit` runs earlier, at the start of the
interpreter's shutdown and in reverse order, so ours must be registered after `concurrent.futures.thread` has
registered its own. It is private to Python; where it is missing we are left with `atexit`.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - registers its own hook first; see above
import contextlib
import os
import threading
import time
import weakref
from typing import Protocol

EXIT_TIMEOUT = 60.0
"""Seconds that an interpreter which is about to end waits for uploads; `REMOTE_CKPT_EXIT_TIMEOUT` overrides it."""


class Drainable(Protocol):
    """Something with work under way."""

    def drain_at_exit(self, timeout: float) -> None:
        """Finish what can be finished within `timeout` seconds, and say what is left."""


_open: weakref.WeakSet[Drainable] = weakref.WeakSet()
_registered_by: int | None = None


def register(writer: Drainable) -> None:
    """See to it that `writer` is drained before this process's interpreter ends."""
    global _registered_by
    if _registered_by != os.getpid():  # a forked child has inherited the hook, and writers that are not its own
        first = _registered_by is None
        _registered_by = os.getpid()
        _open.clear()
        if first:
            hook = getattr(threading, "_register_atexit", atexit.register)
            hook(_drain_all)
    _open.add(writer)


def unregister(writer: Drainable) -> None:
    """Forget `writer`, which has been closed."""
    _open.discard(writer)


def exit_timeout() -> float:
    """Return how many seconds an exit may wait."""
    try:
        return float(os.environ["REMOTE_CKPT_EXIT_TIMEOUT"])
    except (KeyError, ValueError):
        return EXIT_TIMEOUT


def _drain_all() -> None:
    if _registered_by != os.getpid():
        return
    deadline = time.monotonic() + exit_timeout()  # for all of them together
    for writer in list(_open):
        with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C ends the waiting
            writer.drain_at_exit(max(0.0, deadline - time.monotonic()))
