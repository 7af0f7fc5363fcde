"""Progress of long transfers, logged every few seconds from the threads moving the bytes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from remote_ckpt.stores.base import MIB, Progress

log = logging.getLogger("remote_ckpt")

EVERY = 10.0
"""Seconds between two log lines, and before the first. A shorter transfer logs no line."""


class Meter:
    """A `Progress` for counting bytes; passes each count on, and logs bytes, rate and time left at INFO.

    A meter has no thread: while no byte moves, nothing is logged here; retries are logged by the code that retries.
    Threads: any. The logged rate is the rate since the last line, so it shows the present speed of the link.
    """

    def __init__(
        self,
        doing: str,
        total: int,
        also: Progress | None = None,
        *,
        every: float = EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count.

        Args:
            doing: The beginning of each log line: "Uploading s3://…".
            total: Bytes to move.
            also: Called with the same counts.
            every: Seconds between log lines.
            clock: Returns the time in seconds.
        """
        self._doing, self._total, self._also = doing, total, also
        self._every, self._clock = every, clock
        self._lock = threading.Lock()
        self._done = 0
        self._told_at, self._told = clock(), 0

    def __call__(self, count: int) -> None:
        """Count `count` more bytes, and log a line if due."""
        with self._lock:
            self._done += count
            line = self._line()
        # Outside the lock: a slow log handler must not stop the other threads of the transfer.
        if line is not None:
            log.info("%s", line)
        if self._also is not None:
            self._also(count)

    def resume(self, count: int) -> None:
        """Count `count` bytes moved by an earlier transfer; these bytes do not enter the rate."""
        with self._lock:
            self._told += count
        self(count)

    def _line(self) -> str | None:
        """Return a log line if due, and start the next interval; else None. The caller holds the lock."""
        now = self._clock()
        if now - self._told_at < self._every:
            return None
        done, rate = min(self._done, self._total), (self._done - self._told) / (now - self._told_at)
        self._told_at, self._told = now, self._done
        left = f", about {_duration((self._total - done) / rate)} left" if rate else ""
        return (
            f"{self._doing}: {done / MIB:.1f} of {self._total / MIB:.1f} MiB "
            f"({100 * done // max(1, self._total)} %), {rate / MIB:.1f} MiB/s{left}"
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
