"""Whether a `fit` still goes on: Keras calls no callback when an exception ends it."""

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
    """A test of whether the `fit` that called `on_train_begin` is on its thread's stack. Takes no lock; any thread.

    A frame keeps its identity for as long as it runs. The list of callbacks lives as long as that frame at least, so a
    later frame at the same address is not mistaken for it. Outside Keras's own `fit` there is no such frame to look
    for, and training goes on until somebody says that it has ended.

    Attributes:
        thread: Identifies the thread.
        frame: Identifies the frame; None outside `fit`.
        callbacks: Keras's list of callbacks, weakly.
    """

    thread: int = 0
    frame: int | None = None
    callbacks: Callable[[], Any] = lambda: None

    @classmethod
    def here(cls) -> FitUnderWay:
        """Return a test of the `fit` that is calling; from `on_train_begin`."""
        for frame in _stack(sys._getframe()):
            callbacks = frame.f_locals.get("self") if frame.f_code.co_name == "on_train_begin" else None
            fit = frame.f_back
            if isinstance(callbacks, keras.callbacks.CallbackList) and fit is not None and _is_of_keras(fit):
                return cls(threading.get_ident(), id(fit), weakref.ref(callbacks))
        return cls()

    def __call__(self) -> bool:
        """Return whether it goes on."""
        if self.frame is None:
            return True
        stack = _stack(sys._current_frames().get(self.thread))
        return self.callbacks() is not None and any(id(frame) == self.frame for frame in stack)

    def at_end(self, action: Callable[[Any, FitUnderWay], None], user: Any) -> None:
        """Call `action(user, self)` once the list of callbacks is garbage, which is soon after `fit`.

        Keeps no reference to `user`.
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
