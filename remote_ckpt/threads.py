"""Background threads that go on after any error."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("remote_ckpt")

_PAUSE = 1.0  # seconds after an unexpected error: an error at each step must not keep a core busy


def keep_at(
    step: Callable[[], bool], name: str, *, at_end: Callable[[], None] | None = None, pause: float = _PAUSE
) -> threading.Thread:
    """Start a daemon thread for calling `step` again and again until the result is False.

    Any error of `step`, also `SystemExit` from a user's code, is logged, and the thread goes on. A step must leave its
    state consistent when it raises. The thread is a daemon, so that the interpreter does not hang on a dead network at
    its end; `exit_drain` drains before that.

    Args:
        step: One piece of work; returns whether there may be more.
        name: The name of the thread, after `remote_ckpt-`.
        at_end: Called at the end of the thread, on this thread; must not raise.
        pause: Seconds to sleep after an error.
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
    except BaseException as exc:  # noqa: BLE001 - the thread must survive any error of a step
        _report(name, exc)
        time.sleep(pause)
        return True


def _report(name: str, exc: BaseException) -> None:
    with contextlib.suppress(BaseException):  # a second safety net: `logs` already keeps the errors of handlers
        log.error("The %s thread goes on after an error: %s: %s", name, type(exc).__name__, exc, exc_info=exc)
