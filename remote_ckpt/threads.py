"""Background threads that nothing but their own work ends."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("remote_ckpt")

_PAUSE = 1.0  # seconds after an error that nobody foresaw: one that comes at each step must not keep a core busy


def keep_at(
    step: Callable[[], bool], name: str, *, at_end: Callable[[], None] | None = None, pause: float = _PAUSE
) -> threading.Thread:
    """Start a daemon thread that calls `step` again and again until it returns False.

    Whatever `step` raises, `SystemExit` of a user's code included, is logged, and the thread goes on. A step keeps its
    own state right when it raises. Daemons: the interpreter must not hang on a dead network; `exits` drains before it
    ends.

    Args:
        step: One piece of work; returns whether there may be more.
        name: The thread's.
        at_end: Called on the thread as its last act; must not raise.
        pause: Seconds of rest after an error.
    """
    thread = threading.Thread(target=_run, args=(step, name, at_end, pause), name=f"remote_ckpt-{name}", daemon=True)
    thread.start()
    return thread


def _run(step: Callable[[], bool], name: str, at_end: Callable[[], None] | None, pause: float) -> None:
    while _go_on(step, name, pause):
        pass
    if at_end is not None:
        at_end()


def _go_on(step: Callable[[], bool], name: str, pause: float) -> bool:
    try:
        return step()
    except BaseException as exc:  # noqa: BLE001 - the thread outlives it; this is the one place that sees to it
        _report(name, exc)
        time.sleep(pause)
        return True


def _report(name: str, exc: BaseException) -> None:
    with contextlib.suppress(BaseException):  # a handler that calls sys.exit; `logs` takes care of all others
        log.error("The %s thread goes on after an error: %s: %s", name, type(exc).__name__, exc, exc_info=exc)
