"""How far a long transfer has come: told to the log every few seconds, by whoever moves its bytes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from remote_ckpt.stores.base import MIB, Progress

log = logging.getLogger("remote_ckpt")

EVERY = 10.0
"""Seconds between two lines, and before the first: what is done sooner is not worth one."""


class Meter:
    """A `Progress` that counts, passes on what it counts, and logs bytes, rate and time left at INFO.

    It has no thread of its own: a transfer that stands still is silent here, and its retries are logged where they are
    made. It may be called from several threads. The rate is that since the last line, which is what a link does now.
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
            doing: What is under way, as a line of the log begins: "Uploading s3://…".
            total: Bytes there are to move.
            also: Told the same counts.
            every: Seconds between lines.
            clock: Gives seconds.
        """
        self._doing, self._total, self._also = doing, total, also
        self._every, self._clock = every, clock
        self._lock = threading.Lock()
        self._done = 0
        self._told_at, self._told = clock(), 0

    def __call__(self, count: int) -> None:
        """Take note of `count` more bytes."""
        with self._lock:
            self._done += count
            line = self._line()
        if line is not None:
            log.info("%s", line)
        if self._also is not None:
            self._also(count)

    def resume(self, count: int) -> None:
        """Take note of `count` bytes that an earlier transfer has moved: they say nothing of the rate."""
        with self._lock:
            self._told += count
        self(count)

    def _line(self) -> str | None:
        """Return what to log, when it is time."""
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
