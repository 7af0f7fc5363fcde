"""The package's logger: an error inside a user's handler or filter never reaches the code that logs.

A handler that raises would otherwise end a background thread, or the training under `on_error="warn"`. What such a
handler did not take is printed on stderr, so that it is not lost.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading


def make_sturdy(name: str) -> None:
    """Keep the errors of handlers and filters inside the logger of this name, whoever has made it.

    Outside the main thread, where it would end the thread and nothing else, that includes `SystemExit`.
    A record that a handler did not take is printed on stderr if it is a warning or worse.
    """
    logger = logging.getLogger(name)
    hand_over = logger.handle

    def handle(record: logging.LogRecord) -> None:
        try:
            hand_over(record)
        except BaseException as exc:
            if not isinstance(exc, Exception) and threading.current_thread() is threading.main_thread():
                raise  # Ctrl-C, or a handler that exits: the user's will, where it can be done
            if record.levelno >= logging.WARNING:
                print_error(f"{_text(record)} (a logging handler failed: {type(exc).__name__}: {exc})")

    logger.handle = handle  # type: ignore[method-assign]


def print_error(message: str) -> None:
    """Write a line to stderr, which works even when logging has been shut down. Never raises an `Exception`."""
    with contextlib.suppress(Exception):
        print(f"remote_ckpt: {message}", file=sys.stderr, flush=True)  # noqa: T201


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - an argument whose __str__ fails may be why the handler did
        return str(record.msg)
