"""Riders: other callbacks; their state travels with each checkpoint and is restored when training is resumed.

This module lists the attributes that Keras's own callbacks have to remember. Any other object can be a rider if it has
`get_state() -> dict` and `set_state(dict)`; the dict holds numbers, text, and lists and dicts of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import keras

from remote_ckpt.records.state_json import check_size, decode, encode

log = logging.getLogger("remote_ckpt")

States = dict[str, dict[str, Any]]


class Stateful(Protocol):
    """The methods required of a rider."""

    def get_state(self) -> Mapping[str, Any]:
        """Return the state to keep; called when a checkpoint is made, on the training thread."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `get_state`; called after the rider's `on_train_begin`, before any epoch."""


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
    """A Keras callback with the state in attributes; a restored state is checked, as a bucket is not trusted."""

    callback: Any
    kinds: dict[str, Callable[[Any], Any]]

    def get_state(self) -> dict[str, Any]:
        state = {name: kind(getattr(self.callback, name)) for name, kind in self.kinds.items()}
        return {**self._judge(), **state}

    def _judge(self) -> dict[str, str]:
        """Return the metric and the mode behind the callback's best value, as far as the callback has them."""
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
    """`SwapEMAWeights`: if the averages were in the model when the checkpoint was made, swap them back."""

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
    """The riders of a checkpoint callback. For the training thread."""

    def __init__(self, callbacks: Iterable[Any]):
        """Name the riders by their class, with a number from the second rider of a class on.

        Raises:
            ValueError: A rider is not of a supported class of Keras, and lacks `get_state` or `set_state`.
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
        """Record the riders listed after the checkpoint callback; call from the callback's `set_params`.

        Keras gives the same dict to each callback, in the order of the list: callbacks listed later do not have this
        dict yet.
        """
        self._late = [rider for rider in self._keras_callbacks() if rider.params is not params]

    def check(self, params: Any) -> None:
        """Check the riders' order and state; call from the checkpoint callback's `on_train_begin`.

        Riders must be listed before the checkpoint callback. Then a rider's decision at the end of an epoch is part of
        the checkpoint of that epoch, and the state that a rider's `on_train_begin` resets is restored afterwards.

        Raises:
            ValueError: A rider is listed later, or not at all; or its state cannot be recorded.
            Exception: Raised by a rider's own `get_state`.
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
        """Return the present state of each rider; empty if the state of any rider cannot be read or recorded.

        The first failure is logged. Later calls try again.
        """
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
        """Restore the state of each rider; log a warning for each rider without a usable state.

        Args:
            states: A record's `riders`.
            source: The checkpoint's URL, for messages.

        Raises:
            Exception: Raised by the `set_state` of a rider that is not one of Keras's callbacks listed here.
        """
        for name, rider in self._named.items():
            if name not in states:
                log.warning("%s begins anew: its state did not travel with %s.", name, source)
                continue
            try:
                rider.set_state(decode(states[name]))
            except (KeyError, TypeError, ValueError) as exc:  # of another monitor, of another version, or damaged
                if not isinstance(rider, _Attributes):
                    raise  # only the user's own class can judge this error
                log.warning("%s begins anew: its state in %s cannot be used: %s.", name, source, exc)

    def wanting_weights(self) -> list[Any]:
        """Return each `EarlyStopping` with `restore_best_weights` and a best value, but without the best weights."""
        return [
            rider
            for rider in self.callbacks
            if isinstance(rider, keras.callbacks.EarlyStopping)
            and rider.restore_best_weights
            and rider.best is not None
            and rider.best_weights is None
        ]

    def have_stopped(self) -> bool:
        """Return whether an `EarlyStopping` had already ended the resumed training."""
        return any(
            isinstance(rider, keras.callbacks.EarlyStopping)
            and rider.stopped_epoch > 0
            and rider.wait >= rider.patience
            for rider in self.callbacks
        )
