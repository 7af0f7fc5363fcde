"""Signals while a model trains: hold back the first, swallow none, and detect signals while the main thread is busy.

Python runs handlers on the main thread, between two of its instructions: not while that thread is in native code, as in
a long step or a compilation. But Python can write the number of a signal to a file descriptor the moment the operating
system delivers the signal (`signal.set_wakeup_fd`). A thread of the watch reads the number from there.
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

_MOMENT = 0.5  # seconds within which a main thread that is not in native code has run a handler
_LOOK = 0.02  # seconds between two checks of whether the handler has run
_POLL = 60.0  # seconds between two checks of whether the watch was uninstalled, in case the message was lost

_HARMLESS = {
    getattr(signal, name, None)
    for name in ("SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGSTOP")
}
"""Signals that do not end a process that has no handler for them."""

Handler = Any  # what `signal.signal` returns: a function, SIG_DFL, SIG_IGN, or None for one that Python does not know


class SignalWatch:
    """Hold back the first signal of a training for at most `grace` seconds, and pass all others on.

    A signal that is passed on has the effect that it would have had without a watch: the earlier handler runs; if there
    was none, the process ends by the signal, even while the main thread is in native code. (Not while native code keeps
    Python's global lock: then nothing of Python runs.) A child that is forked meanwhile has the earlier handlers.

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
            under_way: Returns whether training is running; called in the handler on the main thread, and on the watch's
                own thread.
            heard: Called with the first signal, on one of these two threads, perhaps on both.
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
        """Install the handlers. On the main thread only: elsewhere signals are left alone, which is logged."""
        if threading.current_thread() is not threading.main_thread():
            log.debug("Training runs outside the main thread, where no signal can be listened for.")
            return
        known = [number for number in self._numbers if signal.getsignal(number) is not None]
        if not known:
            return
        self._over = False
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)  # `set_wakeup_fd` requires it
        for number in known:
            self._previous[number] = signal.signal(number, self._on_signal)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        _installed.add(self)
        keep_at(self._step, "signals", at_end=self._reader.close)

    def uninstall(self) -> None:
        """Restore the earlier handlers, except where somebody has replaced ours meanwhile. Idempotent.

        On the main thread only; elsewhere this does nothing.
        """
        if self._over or threading.current_thread() is not threading.main_thread():
            return
        self._over = True
        for number, handler in self._previous.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)
        assert self._writer is not None
        ours, now = self._writer.fileno(), signal.set_wakeup_fd(self._before, warn_on_full_buffer=False)
        if now != ours:  # somebody has replaced our descriptor since, and may pass signals on to ours: leave both
            signal.set_wakeup_fd(now, warn_on_full_buffer=False)
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")  # ends the thread; if the buffer is full, the thread ends within `_POLL`
        if now == ours:
            self._writer.close()

    def pass_on(self, number: int, frame: FrameType | None = None) -> None:
        """Give a signal the effect of the earlier handler. Main thread only; the process may end here."""
        ours, previous = signal.getsignal(number) == self._on_signal, self._previous.get(number)
        self.uninstall()
        _flush_output()
        if ours or number not in self._previous:
            signal.raise_signal(number)
        elif callable(previous):  # the watch was uninstalled before, or somebody's handler replaced ours and called it
            previous(number, frame)
        elif previous == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Hold back the first signal, and pass on any other.

        Runs on the main thread between any two of its instructions. So this takes no lock and logs nothing: the main
        thread may hold that lock, or the one of the log.
        """
        if self._over or self._answered or self._overdue or not self._under_way():
            self.pass_on(number, frame)
        else:
            self._answered = True
            self._hear(number)

    def _hear(self, number: int) -> None:
        # Handler and thread may both find None: then `heard` is called twice.
        if self.signal is None:
            self.signal, self._deadline = number, time.monotonic() + self._grace
            self._heard(number)

    # The watch's own thread

    def _step(self) -> bool:
        """Wait for the next signal or the end of `grace`, and handle it; return False once the watch is uninstalled."""
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
                os.write(self._before, passed)  # an event loop's, say, which would otherwise miss its own signals
        return arrived

    def _arrived(self, number: int) -> None:
        self._seen += 1
        if self._seen == 1 and self._under_way():
            self._hear(number)  # the main thread may be in native code, and the handler not have run yet
        elif not self._has_passed():
            self._see_through(number)

    def _see_through(self, number: int) -> None:
        """Give a signal the effect of the earlier handler, even if the main thread cannot run a handler now.

        The signal is sent again: of two that arrive while the main thread is in native code, Python handles one. If the
        main thread does not handle it, and the earlier effect was to end the process, the process ends here.
        """
        self._overdue, self._deadline = True, None
        os.kill(os.getpid(), number)
        if not self._has_passed() and self._previous[number] == signal.SIG_DFL and number not in _HARMLESS:
            _end_process(number)

    def _has_passed(self) -> bool:
        """Wait up to `_MOMENT` seconds for the main thread to pass the signal on; return whether it has."""
        until = time.monotonic() + _MOMENT
        while not self._over and time.monotonic() < until:
            time.sleep(_LOOK)
        return self._over

    def _leave_child(self) -> None:
        """Uninstall the watch in a forked child.

        Otherwise the child would hold back its signals, without the thread that ends it after `grace`; and it would
        write their numbers into the parent's socket, as if they were the parent's signals.
        """
        if self._over:
            return
        self._over = True
        for number, handler in self._previous.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)
        if self._writer is not None:
            now = signal.set_wakeup_fd(-1)
            # Not ours: somebody has replaced it, and still needs it.
            if now not in (self._writer.fileno(), -1):
                signal.set_wakeup_fd(now, warn_on_full_buffer=False)


_installed: weakref.WeakSet[SignalWatch] = weakref.WeakSet()


def _leave_children() -> None:
    for watch in list(_installed):
        with contextlib.suppress(ValueError, OSError):  # a watch that fails must not leave the others in the child
            watch._leave_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_children)


def _end_process(number: int) -> None:
    """End the process by a signal without a handler; from any thread, even while the main thread is in native code.

    As after any such signal, uploads are not waited for: sealed checkpoints are on the disk, and can be recovered.
    """

    def say() -> None:
        name = signal.Signals(number).name
        log.warning("%s: the time is over, and training has not come back from native code. The process ends.", name)
        _flush_output()

    told = threading.Thread(target=say, name="remote_ckpt-last-words", daemon=True)
    told.start()
    told.join(_MOMENT)  # not longer: the main thread may hold the locks of log and output
    with contextlib.suppress(Exception):  # no C library to load, or no `signal` in it: `_exit` below remains
        default = ctypes.CDLL(None).signal  # Python's own works on the main thread alone
        default.argtypes, default.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        default(number, None)  # SIG_DFL is a null pointer
        os.kill(os.getpid(), number)
        time.sleep(_MOMENT)
    if os.getpid() != 1:  # the kernel spares a container's first process, with a guard and without
        os._exit(128 + number)  # as shells report it


def _flush_output() -> None:
    """Flush stdout and stderr, so the text already printed survives the end of the process."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, None (pythonw), or a pipe that nobody reads
            stream.flush()
