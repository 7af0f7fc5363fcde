"""Drain unfinished work before the interpreter ends, and print the rest.

`atexit` is too late: by then `concurrent.futures` refuses new work. An upload that needs a fresh connection then fails,
and the exit code is still 0 (measured with s3fs; s3fs#543). Hooks of `threading._register_atexit` run earlier: at the
start of the interpreter's shutdown, the last registered first. So our hook must be registered after the hook of
`concurrent.futures.thread`. The function is private to Python; where it is missing, `atexit` is used.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - the import registers its hook before ours, see above
import os
import threading
import time
from typing import Protocol

from remote_ckpt.logs import print_error

EXIT_TIMEOUT = 60.0
"""Seconds that the interpreter waits for uploads at exit. `REMOTE_CKPT_EXIT_TIMEOUT` overrides this number."""


class Drainable(Protocol):
    """An object with work under way. Should hold no model: a registered object is kept alive."""

    def drain_at_exit(self, timeout: float) -> None:
        """Finish as much work as `timeout` seconds allow, and print the rest on stderr."""

    def left(self) -> str:
        """Return lines on the unfinished work and its place on the disk; empty when nothing is left."""


_open: set[Drainable] = set()
_registered_by: int | None = None


def register(work: Drainable) -> None:
    """Register `work` to be drained before this process ends, even if nothing else refers to `work` by then."""
    global _registered_by
    if _registered_by != os.getpid():  # first call here; after a fork, `_open` is a copy of the parent's work
        first = _registered_by is None
        _registered_by = os.getpid()
        _open.clear()
        if first:  # a forked child has inherited the hook; a second one would drain twice
            hook = getattr(threading, "_register_atexit", atexit.register)
            hook(_drain_all)
    _open.add(work)


def unregister(work: Drainable) -> None:
    """Remove `work` from the register, when finished or closed. Repeating is harmless."""
    _open.discard(work)


def exit_timeout() -> float:
    """Return how many seconds an exit may wait, from the environment or `EXIT_TIMEOUT`."""
    try:
        return float(os.environ["REMOTE_CKPT_EXIT_TIMEOUT"])
    except (KeyError, ValueError):
        return EXIT_TIMEOUT


def _drain_all() -> None:
    """Drain all work within a common limit of time; Ctrl-C ends the waiting for all work."""
    if _registered_by != os.getpid():  # a forked child that registered nothing: the work is the parent's
        return
    deadline = time.monotonic() + exit_timeout()
    everything = list(_open)  # a copy: work unregisters itself when drained
    try:
        for work in everything:
            work.drain_at_exit(max(0.0, deadline - time.monotonic()))
    except KeyboardInterrupt:  # an answer is still due: where the unfinished work waits
        print_error("stopped waiting." + "".join(work.left() for work in everything))
