"""Signals while a model trains: held back once, never swallowed, and noticed also while the main thread is busy.

Python runs handlers on the main thread, between two of its instructions: not while that thread is in native code, as in
a long step or a compilation. What the operating system calls at once is a function of Python's that writes the signal's
number to a file descriptor (`signal.set_wakeup_fd`). A thread reads it from there.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from remote_ckpt.threads import keep_at

log = logging.getLogger("remote_ckpt")

_MOMENT = 0.5  # seconds in which a main thread that is not in native code has run a handler
_LOOK = 0.02  # seconds between two looks whether it has
_POLL = 60.0  # seconds after which the thread looks whether it is all over, should the message have been lost

_HARMLESS = {
    getattr(signal, name, None)
    for name in ("SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGSTOP")
}
"""Signals that do not end a process that has no handler for them."""

Handler = Any  # what `signal.signal` returns: a function, SIG_DFL, SIG_IGN, or None for one that Python does not know


class SignalWatch:
    """Holds back the first signal of one training, for at most `grace` seconds, and lets all others through.

    What is let through does what it would have done without a watch: the handler that was there before runs; where
    there was none, the process ends by the signal, also while the main thread is in native code. (Not while native code
    keeps Python's global lock: then nothing of Python runs.) A child that is forked meanwhile has the old handlers.

    Attributes:
        signal: The signal that is held back, or None.
    """

    def __init__(
        self, numbers: Iterable[int], grace: float, *, under_way: Callable[[], bool], heard: Callable[[int], None]
    ):
        """Make a watch; nothing is installed yet.

        Args:
            numbers: The signals.
            grace: Seconds.
            under_way: Whether training is going on; asked on the main thread and on the watch's.
            heard: Called with the first signal, on either of them, and perhaps on both.
        """
        self.signal: int | None = None
        self._numbers, self._grace = tuple(numbers), grace
        self._under_way, self._heard = under_way, heard
        self._previous: dict[int, Handler] = {}
        self._deadline: float | None = None
        self._answered = self._overdue = False
        self._seen = 0
        self._over = True
        self._process = os.getpid()
        self._before = -1
        self._reader: socket.socket | None = None
        self._writer: socket.socket | None = None

    @property
    def holds_back(self) -> bool:
        """Whether a signal is held back now."""
        return self.signal is not None and not self._over

    def install(self) -> None:
        """Take the signals' handlers. Only the main thread can; elsewhere signals are left alone."""
        if threading.current_thread() is not threading.main_thread():
            log.debug("Training runs outside the main thread, where no signal can be listened for.")
            return
        known = [number for number in self._numbers if signal.getsignal(number) is not None]
        if not known:
            return
        self._over = False
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        for number in known:
            self._previous[number] = signal.signal(number, self._on_signal)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        _installed.add(self)
        keep_at(self._step, "signals", at_end=self._reader.close)

    def uninstall(self) -> None:
        """Give the handlers back, where nobody has taken them meanwhile. Repeating is harmless. Main thread only."""
        if self._over or threading.current_thread() is not threading.main_thread():
            return
        self._over = True
        for number, handler in self._previous.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)
        assert self._writer is not None
        ours, now = self._writer.fileno(), signal.set_wakeup_fd(self._before, warn_on_full_buffer=False)
        if now != ours:  # somebody has put theirs over ours since, and may write to ours in turn: leave both
            signal.set_wakeup_fd(now, warn_on_full_buffer=False)
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")  # lets the thread end
        if now == ours:
            self._writer.close()

    def pass_on(self, number: int, frame: FrameType | None = None) -> None:
        """Do what a signal would have done without this watch. Main thread only; this may be the process's end."""
        ours, previous = signal.getsignal(number) == self._on_signal, self._previous.get(number)
        self.uninstall()
        _flush_output()
        if ours or number not in self._previous:
            signal.raise_signal(number)
        elif callable(previous):  # somebody's handler stands over ours and has called it
            previous(number, frame)
        elif previous == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Hold back the first; on the main thread between two of its instructions, so: no lock, no log."""
        if self._over or self._answered or self._overdue or not self._under_way():
            self.pass_on(number, frame)
        else:
            self._answered = True
            self._hear(number)

    def _hear(self, number: int) -> None:
        if self.signal is None:
            self.signal, self._deadline = number, time.monotonic() + self._grace
            self._heard(number)

    # The watch's own thread

    def _step(self) -> bool:
        """Wait for the next signal, or the end of the time; return False once it is all over."""
        left = None if self._deadline is None else max(0.001, self._deadline - time.monotonic())
        arrived = self._read(min(left or _POLL, _POLL))
        if self._over or self._process != os.getpid():
            return False
        for number in arrived:
            if number in self._previous:
                self._arrived(number)
        if self.signal is not None and self._deadline is not None and time.monotonic() >= self._deadline:
            self._see_through(self.signal)
        return not self._over

    def _read(self, seconds: float) -> bytes:
        assert self._reader is not None
        self._reader.settimeout(seconds)
        try:
            arrived = self._reader.recv(64)
        except TimeoutError:
            return b""
        if self._before >= 0 and (passed := arrived.replace(b"\0", b"")):
            with contextlib.suppress(OSError):
                os.write(self._before, passed)  # an event loop's, which would not hear of its signals otherwise
        return arrived

    def _arrived(self, number: int) -> None:
        self._seen += 1
        if self._seen == 1 and self._under_way():
            self._hear(number)  # the handler may not have run yet
        elif not self._has_passed():
            self._see_through(number)

    def _see_through(self, number: int) -> None:
        """Have a signal do what it would have done without a watch, whether the main thread can run a handler or not.

        It is sent again: of two that come while the main thread is in native code, Python hands over one.
        """
        self._overdue, self._deadline = True, None
        os.kill(os.getpid(), number)
        if not self._has_passed() and self._previous[number] == signal.SIG_DFL and number not in _HARMLESS:
            _end_process(number)

    def _has_passed(self) -> bool:
        """Return whether the main thread has passed the signal on, after giving it a moment to."""
        until = time.monotonic() + _MOMENT
        while not self._over and time.monotonic() < until:
            time.sleep(_LOOK)
        return self._over

    def _leave_child(self) -> None:
        """Take nothing from a forked child: it would not end when told to, and tell its parent of its own signals."""
        if self._over:
            return
        self._over = True
        for number, handler in self._previous.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)
        if self._writer is not None:
            now = signal.set_wakeup_fd(-1)
            if now not in (self._writer.fileno(), -1):
                signal.set_wakeup_fd(now, warn_on_full_buffer=False)


_installed: weakref.WeakSet[SignalWatch] = weakref.WeakSet()


def _leave_children() -> None:
    for watch in list(_installed):
        with contextlib.suppress(ValueError, OSError):
            watch._leave_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_children)


def _end_process(number: int) -> None:
    """End the process by a signal that has no handler; from any thread, whatever the main thread does.

    As by that signal, nothing is drained: what was sealed is on the disk, and can be recovered.
    """

    def say() -> None:
        name = signal.Signals(number).name
        log.warning("%s: the time is over, and training has not come back from native code. The process ends.", name)
        _flush_output()

    told = threading.Thread(target=say, name="remote_ckpt-last-words", daemon=True)
    told.start()
    told.join(_MOMENT)  # the main thread may hold the locks of log and output
    with contextlib.suppress(Exception):
        default = ctypes.CDLL(None).signal  # Python's own works on the main thread alone
        default.argtypes, default.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        default(number, None)  # SIG_DFL is a null pointer
        os.kill(os.getpid(), number)
        time.sleep(_MOMENT)
    if os.getpid() != 1:  # the kernel spares a container's first process, with a guard and without
        os._exit(128 + number)  # as shells report it


def _flush_output() -> None:
    """Keep what was printed, even if the next step is the process's end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
