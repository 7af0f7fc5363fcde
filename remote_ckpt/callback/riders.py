"""Riders: other callbacks, whose state travels with each checkpoint and comes back when training is resumed.

What Keras's own callbacks have to remember is known here. Any other object rides if it has `get_state() -> dict` and
`set_state(dict)`; the dict holds numbers, text, and lists and dicts of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import keras

from remote_ckpt.checkpoint.plain import check_size, decode, encode

log = logging.getLogger("remote_ckpt")

States = dict[str, dict[str, Any]]


class Stateful(Protocol):
    """What an object needs to ride along."""

    def get_state(self) -> Mapping[str, Any]:
        """Return all there is to remember; called when a checkpoint is made, on the training thread."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back what `get_state` returned; called before the first epoch, after each `on_train_begin`."""


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no count")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _score(value: Any) -> float | None:
    return None if value is None else float(value)


def _epochs(value: Any) -> list[int]:
    if not isinstance(value, list):
        raise ValueError("the epochs are no list")
    return [_count(epoch) for epoch in value]


def _curves(value: Any) -> dict[str, list[Any]]:
    if not isinstance(value, dict) or not all(isinstance(curve, list) for curve in value.values()):
        raise ValueError("the history is not a list for each metric")
    return {name: list(curve) for name, curve in value.items()}


_ATTRIBUTES: dict[type, dict[str, Callable[[Any], Any]]] = {
    keras.callbacks.EarlyStopping: {"wait": _count, "best": _score, "best_epoch": _count, "stopped_epoch": _count},
    keras.callbacks.ReduceLROnPlateau: {"wait": _count, "best": _score, "cooldown_counter": _count},
    keras.callbacks.LearningRateScheduler: {},  # goes by the epoch, and by the optimizer's learning rate
    keras.callbacks.History: {"epoch": _epochs, "history": _curves},
    keras.callbacks.SwapEMAWeights: {"_ema_weights_in_model": _flag},
}


@dataclass(frozen=True)
class _Attributes:
    """A callback of Keras, whose state is in attributes; what comes back is checked, for a bucket is not trusted."""

    callback: Any
    kinds: dict[str, Callable[[Any], Any]]

    def get_state(self) -> dict[str, Any]:
        state = {name: kind(getattr(self.callback, name)) for name, kind in self.kinds.items()}
        return {**self._judge(), **state}

    def _judge(self) -> dict[str, str]:
        """Return what the best of this callback is about: its metric, and which way that is better."""
        judge = {name: getattr(self.callback, name, None) for name in ("monitor", "mode")}
        return {name: value for name, value in judge.items() if isinstance(value, str)}

    def set_state(self, state: dict[str, Any]) -> None:
        if not isinstance(state, dict):
            raise ValueError("it is no dict")
        for name, now in self._judge().items():
            was = state.get(name, now)  # earlier versions did not write it
            if was != now and "auto" not in (was, now):
                raise ValueError(f"its {name} was {was!r}, and now is {now!r}")
        for name, value in {name: kind(state[name]) for name, kind in self.kinds.items()}.items():
            setattr(self.callback, name, value)


@dataclass(frozen=True)
class _Swapping(_Attributes):
    """`SwapEMAWeights`: a checkpoint made while the averages are in the model is loaded, and then swapped back."""

    def set_state(self, state: dict[str, Any]) -> None:
        if _flag(state["_ema_weights_in_model"]):
            self.callback._swap_variables()
        self.callback._ema_weights_in_model = False


def _stateful(callback: Any) -> Stateful:
    if callable(getattr(callback, "get_state", None)) and callable(getattr(callback, "set_state", None)):
        return callback  # type: ignore[no-any-return]
    if isinstance(callback, keras.callbacks.SwapEMAWeights):
        return _Swapping(callback, _ATTRIBUTES[keras.callbacks.SwapEMAWeights])
    for known, kinds in _ATTRIBUTES.items():
        if isinstance(callback, known):
            return _Attributes(callback, kinds)
    known_names = ", ".join(known.__name__ for known in _ATTRIBUTES)
    raise ValueError(
        f"{type(callback).__name__} cannot be a rider: what it must remember is not known. Known are {known_names}; "
        "any other class rides once it has get_state() -> dict and set_state(dict)."
    )


class Riders:
    """The riders of one checkpoint callback; on the training thread."""

    def __init__(self, callbacks: Iterable[Any]):
        """Name the riders: by their class, and numbered from the second of a class on.

        Raises:
            ValueError: One of them is of a class that is not known, and lacks `get_state` and `set_state`.
        """
        self.callbacks = tuple(callbacks)
        self._named: dict[str, Stateful] = {}
        for callback in self.callbacks:
            name = type(callback).__name__
            number = sum(type(other).__name__ == name for other in self.callbacks[: len(self._named)]) + 1
            self._named[name if number == 1 else f"{name}-{number}"] = _stateful(callback)
        self._late: list[Any] = []
        self._told = False

    def note_order(self, params: Any) -> None:
        """Notice which riders come later in the list of callbacks; call it from `set_params`.

        Keras hands one and the same dict to each callback in their order, so those that come later lack it as yet.
        """
        self._late = [rider for rider in self._keras_callbacks() if rider.params is not params]

    def check(self, params: Any) -> None:
        """Let pass riders that are listed before the checkpoint, and whose state may travel; from `on_train_begin`.

        What they decide at an epoch's end is then part of the checkpoint of that end, and what they forget in their
        `on_train_begin` is restored after it.

        Raises:
            ValueError: One is listed later, or not at all; or it remembers what cannot travel.
        """
        for rider in self._keras_callbacks():
            name = type(rider).__name__
            if rider.params is not params:
                raise ValueError(f"{name} is a rider, but not among the callbacks of this fit: list it there too.")
            if any(rider is late for late in self._late):
                raise ValueError(
                    f"{name} is a rider and is listed after the checkpoint: list it before, so that what it decides at "
                    "the end of an epoch travels with the checkpoint of that epoch."
                )
        self._checked_states()

    def _keras_callbacks(self) -> list[Any]:
        return [rider for rider in self.callbacks if isinstance(rider, keras.callbacks.Callback)]

    def states(self) -> States:
        """Return what each rider remembers now; nothing if it cannot be had or travel, which is told once."""
        try:
            return self._checked_states()
        except Exception as exc:  # noqa: BLE001 - of the user's own class; the model is saved without it
            if not self._told:
                log.warning("Checkpoints are saved without the state of the riders from now on: %s", exc)
            self._told = True
            return {}

    def _checked_states(self) -> States:
        states = {name: dict(rider.get_state()) for name, rider in self._named.items()}
        check_size({name: encode(state, name) for name, state in states.items()})
        return states

    def restore(self, states: Mapping[str, Any], source: str) -> None:
        """Give each rider back what it remembered; say which have nothing to come back to.

        Args:
            states: A record's `riders`.
            source: The checkpoint's URL, for messages.
        """
        for name, rider in self._named.items():
            if name not in states:
                log.warning("%s begins anew: its state did not travel with %s.", name, source)
                continue
            try:
                rider.set_state(decode(states[name]))
            except (KeyError, TypeError, ValueError) as exc:
                if not isinstance(rider, _Attributes):
                    raise  # the user's own class says what is wrong
                log.warning("%s begins anew: its state in %s cannot be used: %s.", name, source, exc)

    def wanting_weights(self) -> list[Any]:
        """Return each `EarlyStopping` that is to restore its best weights at the end and has a best, but not them."""
        return [
            rider
            for rider in self.callbacks
            if isinstance(rider, keras.callbacks.EarlyStopping)
            and rider.restore_best_weights
            and rider.best is not None
            and rider.best_weights is None
        ]

    def have_stopped(self) -> bool:
        """Return whether an `EarlyStopping` had already ended the training that is resumed."""
        return any(
            isinstance(rider, keras.callbacks.EarlyStopping)
            and rider.stopped_epoch > 0
            and rider.wait >= rider.patience
            for rider in self.callbacks
        )
