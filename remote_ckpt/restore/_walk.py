"""Keras's own walk through a model, with another act in the place of `load_own_variables`.

Keras's loader visits every saveable, and again under another name when it failed under the first. What it skips or
swallows on that way (a layer that is not built, an array without a place) it does not report. So the walk is done
twice: once to see what would be read into what, touching nothing, and once to read exactly that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from keras import Variable
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.saving import saving_lib

from remote_ckpt.capture import skipping_by_heart, written_by
from remote_ckpt.restore._held import Held, Reading, Spec

Load = Callable[[Any], None]
Act = Callable[[Any, str, Load], None]
_METHOD = "load_own_variables"


class NoMatch(ValueError):
    """A saveable and a place of the file that do not fit; Keras tries the next place."""


@dataclass
class Match:
    """One saveable that takes what the file has at one place."""

    saveable: Any
    place: str
    variables: dict[str, Any]
    """Key -> variable; empty where only the saveable's own loading method can tell."""
    keys: frozenset[str]


@dataclass
class Miss:
    """Why a saveable does not take what the file has at a place."""

    saveable: Any
    place: str
    reason: str
    unbuilt: bool = False


@dataclass
class Matches:
    """What a model would take from a file.

    Attributes:
        found: By the saveable's id.
        missed: By the saveable's id: where it was looked for first.
        optimizers: Place -> optimizer, in the order of the walk; an optimizer inside another one included.
    """

    found: dict[int, Match] = field(default_factory=dict)
    missed: dict[int, Miss] = field(default_factory=dict)
    optimizers: dict[str, Any] = field(default_factory=dict)

    @property
    def taken(self) -> set[tuple[str, str]]:
        """The arrays of the file that have a place in the model."""
        return {(match.place, key) for match in self.found.values() for key in match.keys}


def match(model: Any, held: Held, *, cast: bool = False) -> Matches:
    """Return what each part of the model but the optimizers would take. Nothing is read, nothing is changed."""
    matches = Matches()

    def act(saveable: Any, place: str, load: Load) -> None:
        if isinstance(saveable, BaseOptimizer):
            if not any(saveable is one for one in matches.optimizers.values()):
                matches.optimizers[place] = saveable
        elif id(saveable) not in matches.found or not matches.found[id(saveable)].keys:
            _match_one(saveable, held.at(place), load, held, matches, cast)

    walk(model, Reading(held), act)
    return matches


def _match_one(saveable: Any, place: str, load: Load, held: Held, matches: Matches, cast: bool) -> None:
    specs = held.groups.get(place, {})
    written = _written(saveable, load)
    if written is None:  # only its own loading method can tell; it is asked at the first place where there is anything
        if specs or id(saveable) not in matches.found:
            matches.found[id(saveable)] = Match(saveable, place, {}, frozenset(specs))
        if not specs:
            raise NoMatch("nothing there")
        return
    reason = difference(specs, written, cast=cast)
    if reason is None:
        if written:
            matches.found[id(saveable)] = Match(saveable, place, written, frozenset(specs))
            matches.missed.pop(id(saveable), None)
        return
    unbuilt = not written and not getattr(saveable, "built", True)
    matches.missed.setdefault(id(saveable), Miss(saveable, place, reason, unbuilt))
    raise NoMatch(reason)


def _written(saveable: Any, load: Load) -> dict[str, Any] | None:
    """Return the variables that a saveable saves, by key; None where it loads in a way of its own."""
    if not (getattr(load, "__module__", None) or "").startswith("keras."):
        return None
    try:
        written = written_by(saveable)
    except Exception:  # noqa: BLE001 - what a layer cannot save yet it may load all the same: its vocabulary is empty
        return None
    return written if all(isinstance(value, Variable) for value in written.values()) else None


def difference(specs: dict[str, Spec], written: dict[str, Any], *, cast: bool = False) -> str | None:
    """Return in what the file's arrays and the model's variables differ, or None."""
    if specs.keys() != written.keys():
        return f"{_count(len(written))} in the model, {_count(len(specs))} in the checkpoint"
    for key, spec in specs.items():
        mine = Spec.of(written[key])
        if not spec.fits(mine, cast=cast):
            return f"'{written[key].name}' is {mine} in the model, {spec} in the checkpoint"
    return None


def _count(number: int) -> str:
    return f"{number or 'no'} variable{'' if number == 1 else 's'}"


def read(model: Any, held: Held, matches: Matches) -> tuple[set[tuple[str, str]], Exception | None]:
    """Let each saveable that was matched load what it was matched with.

    Returns:
        The arrays that were read; and the first error that a loading method raised, if any. Variables that were
        assigned before an error stay assigned.
    """
    store = Reading(held)
    problem: list[Exception] = []
    done: set[int] = set()

    def act(saveable: Any, place: str, load: Load) -> None:
        found = matches.found.get(id(saveable))
        if found is None or problem or id(saveable) in done:
            return
        if found.place != held.at(place):
            raise NoMatch("its place is another one")
        done.add(id(saveable))
        try:
            load(store.get(place))
        except Exception as exc:  # noqa: BLE001 - the caller puts everything back, whatever went wrong
            problem.append(exc)

    walk(model, store, act)
    return store.read, problem[0] if problem else None


def saveables(model: Any) -> list[tuple[Any, str]]:
    """Return all that Keras's loader visits, each with its first place."""
    found: dict[int, tuple[Any, str]] = {}

    def act(saveable: Any, place: str, load: Load) -> None:  # noqa: ARG001
        found.setdefault(id(saveable), (saveable, place))

    walk(model, _Nothing(), act)
    return list(found.values())


def walk(model: Any, store: Any, act: Act) -> None:
    """Let Keras's loader visit the model, and call `act(saveable, place, load)` where it would call `load`.

    For the training thread: Keras's function is replaced for the time of the walk.
    """
    keras_load_state = saving_lib._load_state

    @functools.wraps(keras_load_state)
    def load_state(
        saveable: Any, weights_store: Any, assets_store: Any, inner_path: str, *args: Any, **options: Any
    ) -> None:
        if not hasattr(saveable, _METHOD):
            keras_load_state(saveable, weights_store, assets_store, inner_path, *args, **options)
            return
        own = vars(saveable)
        before = own.get(_METHOD)
        load = before.load if isinstance(before, _StandIn) else getattr(saveable, _METHOD)
        own[_METHOD] = _StandIn(act, saveable, inner_path, load)
        try:
            keras_load_state(saveable, weights_store, assets_store, inner_path, *args, **options)
        finally:
            if before is None:
                del own[_METHOD]
            else:
                own[_METHOD] = before

    saving_lib._load_state = load_state
    try:
        with skipping_by_heart():
            load_state(model, store, None, "", visited_saveables=set(), failed_saveables=set(), error_msgs={})
    finally:
        saving_lib._load_state = keras_load_state


class _Nothing(saving_lib.H5IOStore):  # type: ignore[misc]  # Keras ships no types
    """A store that has everything and gives nothing: for a walk that loads nothing."""

    def __init__(self) -> None:
        self.mode = "r"

    def __bool__(self) -> bool:
        return True

    def get(self, _path: str) -> Any:
        return self

    def has_path(self, _path: str) -> bool:
        return True


class _StandIn:
    """`load_own_variables` of one saveable for the time of a walk; `load` is the real one."""

    def __init__(self, act: Act, saveable: Any, place: str, load: Load) -> None:
        self._act, self._saveable, self._place, self.load = act, saveable, place, load

    def __call__(self, _store: Any) -> None:
        self._act(self._saveable, self._place, self.load)
