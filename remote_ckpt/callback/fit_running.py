"""Detect whether a `fit` is still running: Keras calls no callback when an exception ends `fit`."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import keras


@dataclass(frozen=True)
class FitUnderWay:
    """A test for a running `fit`: whether the frame of `fit` is on the stack of the training thread.

    Takes no lock; for any thread, and for signal handlers. A frame keeps its identity for as long as it runs. Keras's
    list of callbacks lives at least as long as the frame of `fit`; once the list is gone, a later frame at the same
    address is not mistaken for that `fit`. Outside Keras's own `fit` there is no frame to look for, and the test always
    returns True.

    Attributes:
        thread: Identifies the thread.
        frame: Identifies the frame; None outside `fit`.
        callbacks: A weak reference to Keras's list of callbacks.
    """

    thread: int = 0
    frame: int | None = None
    callbacks: Callable[[], Any] = lambda: None

    @classmethod
    def here(cls) -> FitUnderWay:
        """Return a test of the calling `fit`; call from `on_train_begin`."""
        for frame in _stack(sys._getframe()):
            callbacks = frame.f_locals.get("self") if frame.f_code.co_name == "on_train_begin" else None
            fit = frame.f_back
            if isinstance(callbacks, keras.callbacks.CallbackList) and fit is not None and _is_of_keras(fit):
                return cls(threading.get_ident(), id(fit), weakref.ref(callbacks))
        return cls()

    def __call__(self) -> bool:
        """Return whether `fit` is still running; True outside `fit`."""
        if self.frame is None:
            return True
        stack = _stack(sys._current_frames().get(self.thread))
        return self.callbacks() is not None and any(id(frame) == self.frame for frame in stack)

    def at_end(self, action: Callable[[Any, FitUnderWay], None], user: Any) -> None:
        """Call `action(user, self)` once Keras's list of callbacks is garbage, soon after the end of `fit`.

        The call comes on the thread where the list is collected, and not at the interpreter's exit. Keeps no reference
        to `user`. Outside `fit`, or if `user` is garbage too, nothing is called.
        """
        callbacks, weak = self.callbacks(), weakref.ref(user)

        def act() -> None:
            if (alive := weak()) is not None:
                action(alive, self)

        if callbacks is not None:
            weakref.finalize(callbacks, act).atexit = False


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_of_keras(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("keras.")
