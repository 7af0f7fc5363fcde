"""Nothing is left behind silently when the interpreter ends.

`atexit` is too late: by then `concurrent.futures` refuses new work, and an upload that needs a fresh connection fails
with exit code 0 (measured with s3fs; s3fs#543). `threading._register_atexit` runs earlier, at the start of the
interpreter's shutdown and in reverse order, so ours must be registered after `concurrent.futures.thread` has
registered its own. It is private to Python; where it is missing we are left with `atexit`.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - registers its own hook first; see above
import os
import threading
import time
from typing import Protocol

from remote_ckpt.logs import print_error

EXIT_TIMEOUT = 60.0
"""Seconds that an interpreter which is about to end waits for uploads; `REMOTE_CKPT_EXIT_TIMEOUT` overrides it."""


class Drainable(Protocol):
    """Something with work under way. It should hold no model: it is kept alive until it is unregistered."""

    def drain_at_exit(self, timeout: float) -> None:
        """Finish what can be finished within `timeout` seconds, and say what is left."""

    def left(self) -> str:
        """Return what is left and where it waits; empty when nothing is."""


_open: set[Drainable] = set()
_registered_by: int | None = None


def register(work: Drainable) -> None:
    """See to it that `work` is drained before this process's interpreter ends, whoever still refers to it."""
    global _registered_by
    if _registered_by != os.getpid():  # a forked child has inherited the hook, and work that is not its own
        first = _registered_by is None
        _registered_by = os.getpid()
        _open.clear()
        if first:
            hook = getattr(threading, "_register_atexit", atexit.register)
            hook(_drain_all)
    _open.add(work)


def unregister(work: Drainable) -> None:
    """Forget `work`, which is over."""
    _open.discard(work)


def exit_timeout() -> float:
    """Return how many seconds an exit may wait."""
    try:
        return float(os.environ["REMOTE_CKPT_EXIT_TIMEOUT"])
    except (KeyError, ValueError):
        return EXIT_TIMEOUT


def _drain_all() -> None:
    """Drain all work within one limit of time; Ctrl-C ends the waiting for all of it."""
    if _registered_by != os.getpid():
        return
    deadline = time.monotonic() + exit_timeout()
    everything = list(_open)
    try:
        for work in everything:
            work.drain_at_exit(max(0.0, deadline - time.monotonic()))
    except KeyboardInterrupt:
        print_error("stopped waiting." + "".join(work.left() for work in everything))
