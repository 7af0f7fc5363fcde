"""Processes of one history that run one at a time, and stop before calls of their stores: races in a given order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from remote_ckpt.testing.faulty import Call, Fault


class Turn:
    """Some work in a thread of its own, which goes on only while `go` is called, and so many calls far.

    The work's store must have `pause` as its plan, or ask it in its plan.
    """

    def __init__(self, work: Callable[[], Any]):
        """Nothing runs before `go`."""
        self.error: BaseException | None = None
        self.ended = False
        self._work = work
        self._left = 0
        self._may_go, self._has_stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def go(self, calls: float = float("inf")) -> None:
        """Let the work make so many calls more, and return when it is about to make another, or has ended."""
        if self.ended:
            return
        self._left = calls
        self._may_go.release()
        self._has_stopped.acquire()
        if self.ended and self.error is not None:
            raise self.error

    def pause(self, call: Call) -> Fault | None:
        """Stop before a call when those allowed are used up. It is a plan without faults."""
        if self._left <= 0:
            self._has_stopped.release()
            self._may_go.acquire()
        self._left -= 1
        return None

    def _run(self) -> None:
        self._may_go.acquire()
        try:
            self._work()
        except BaseException as exc:  # the test's thread raises it
            self.error = exc
        self.ended = True
        self._has_stopped.release()
