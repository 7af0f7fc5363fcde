"""The package's logger: an error inside a user's handler or filter never reaches the code calling the logger.

A handler that raises would otherwise end a background thread, or the training under `on_error="warn"`. If a handler
fails, a warning or worse is printed on stderr, so that the text is not lost.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading


def make_sturdy(name: str) -> None:
    """Keep errors of handlers and filters inside the logger `name`.

    Outside the main thread this includes `SystemExit`, which would end only the thread. If a handler fails, the log
    record is printed on stderr if its level is WARNING or higher.
    """
    logger = logging.getLogger(name)
    hand_over = logger.handle

    def handle(record: logging.LogRecord) -> None:
        try:
            hand_over(record)
        except BaseException as exc:
            if not isinstance(exc, Exception) and threading.current_thread() is threading.main_thread():
                raise  # Ctrl-C, or a handler that calls sys.exit: in the main thread it ends the program, as wanted
            if record.levelno >= logging.WARNING:
                print_error(f"{_text(record)} (a logging handler failed: {type(exc).__name__}: {exc})")

    logger.handle = handle  # type: ignore[method-assign]


def print_error(message: str) -> None:
    """Print a line on stderr, even after logging was shut down. Never raise an `Exception`."""
    with contextlib.suppress(Exception):
        print(f"remote_ckpt: {message}", file=sys.stderr, flush=True)  # noqa: T201


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - an argument whose __str__ fails may be why the handler did
        return str(record.msg)
