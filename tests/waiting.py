"""Waiting for what another thread or process does, which decides no test: only a hang ends such a wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

HANG = 240.0
"""Seconds after which something hangs: below pytest's own limit, and far above what a loaded machine takes."""


def until(holds: Callable[[], object], what: str = "it did not come true") -> None:
    """Wait until `holds()` is true."""
    ended = time.monotonic() + HANG
    while not holds():
        assert time.monotonic() < ended, what
        threading.Event().wait(0.02)
