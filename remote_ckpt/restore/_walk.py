"""Walk through a model with Keras's own loader, with another function in place of `load_own_variables`.

Keras's loader visits every saveable, and visits a saveable again under another name if the first name failed. The
loader does not report a layer that is not built, or an array without a place in the model. So the walk is done twice:
first to match arrays with variables, without assigning anything, and then to read exactly the matched arrays.
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
    """A mismatch of a saveable and a place in the file; Keras then tries the saveable's next place."""


@dataclass
class Match:
    """A saveable matched with the arrays at a place in the file."""

    saveable: Any
    place: str
    variables: dict[str, Any]
    """Key -> variable; empty for a saveable with a loading method of its own, whose variables are not known."""
    keys: frozenset[str]


@dataclass
class Miss:
    """A mismatch of a saveable with the arrays at a place, and the reason."""

    saveable: Any
    place: str
    reason: str
    unbuilt: bool = False


@dataclass
class Matches:
    """The matches of a model's saveables with a file's arrays.

    Attributes:
        found: Matches by the `id()` of the saveable.
        missed: Mismatches by the `id()` of the saveable: at the first place that Keras tried.
        optimizers: Place -> optimizer, in the order of the walk; optimizers inside other optimizers included.
    """

    found: dict[int, Match] = field(default_factory=dict)
    missed: dict[int, Miss] = field(default_factory=dict)
    optimizers: dict[str, Any] = field(default_factory=dict)

    @property
    def taken(self) -> set[tuple[str, str]]:
        """The arrays of the file with a place in the model: (place, key)."""
        return {(match.place, key) for match in self.found.values() for key in match.keys}


def match(model: Any, held: Held, *, cast: bool = False) -> Matches:
    """Match the model's saveables, without the optimizers, with the file. No array is read, none assigned."""
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
    # A saveable with a loading method of its own cannot be compared. It is matched with the first place that has
    # arrays.
    if written is None:
        if specs or id(saveable) not in matches.found:
            matches.found[id(saveable)] = Match(saveable, place, {}, frozenset(specs))
        if not specs:
            raise NoMatch("nothing there")  # for Keras's loader, which then visits the saveable at its other places
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
    """Return the saved variables of a saveable, by key; None for a saveable with a loading method of its own."""
    if not (getattr(load, "__module__", None) or "").startswith("keras."):
        return None
    try:
        written = written_by(saveable)
    except Exception:  # noqa: BLE001 - a layer that cannot be saved yet (empty vocabulary) may be loaded all the same
        return None
    return written if all(isinstance(value, Variable) for value in written.values()) else None


def difference(specs: dict[str, Spec], written: dict[str, Any], *, cast: bool = False) -> str | None:
    """Return the first difference between the file's arrays and the model's variables, in words; or None."""
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
    """Load each matched saveable from the matched place.

    After the first error nothing more is loaded. Variables that were assigned before the error stay assigned: the
    caller puts them back.

    Returns:
        The arrays that were read; and the first error that a loading method raised, if any.
    """
    store = Reading(held)
    problem: list[Exception] = []
    done: set[int] = set()

    def act(saveable: Any, place: str, load: Load) -> None:
        found = matches.found.get(id(saveable))
        if found is None or problem or id(saveable) in done:
            return
        if found.place != held.at(place):
            raise NoMatch("its place is another one")  # Keras's loader goes on to the place that was matched
        done.add(id(saveable))
        try:
            load(store.get(place))
        except Exception as exc:  # noqa: BLE001 - Keras's loader would only collect it; the caller raises it
            problem.append(exc)

    walk(model, store, act)
    return store.read, problem[0] if problem else None


def saveables(model: Any) -> list[tuple[Any, str]]:
    """Return all saveables visited by Keras's loader, each with the first place."""
    found: dict[int, tuple[Any, str]] = {}

    def act(saveable: Any, place: str, load: Load) -> None:  # noqa: ARG001
        found.setdefault(id(saveable), (saveable, place))

    walk(model, _Nothing(), act)
    return list(found.values())


def walk(model: Any, store: Any, act: Act) -> None:
    """Let Keras's loader visit the model, and call `act(saveable, place, load)` in place of `load`.

    For the training thread. Keras's function is replaced for the time of the walk, without a lock: a load in another
    thread at the same time would call the replacement.
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
        # `before` is a stand-in when the saveable is reached again from inside itself: Keras marks a saveable as
        # visited only after its children.
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

    # Keras's function calls itself for children by its name in the module: so they come to the replacement too.
    saving_lib._load_state = load_state
    try:
        with skipping_by_heart():
            load_state(model, store, None, "", visited_saveables=set(), failed_saveables=set(), error_msgs={})
    finally:
        saving_lib._load_state = keras_load_state


class _Nothing(saving_lib.H5IOStore):  # type: ignore[misc]  # Keras ships no types
    """An empty store with every path: for a walk without loading."""

    def __init__(self) -> None:
        self.mode = "r"

    def __bool__(self) -> bool:
        return True  # Keras's loader skips a false store

    def get(self, _path: str) -> Any:
        return self

    def has_path(self, _path: str) -> bool:
        return True  # the loader asks before it visits a container


class _StandIn:
    """A replacement for a saveable's `load_own_variables` during a walk; `load` is the original method."""

    def __init__(self, act: Act, saveable: Any, place: str, load: Load) -> None:
        self._act, self._saveable, self._place, self.load = act, saveable, place, load

    def __call__(self, _store: Any) -> None:
        self._act(self._saveable, self._place, self.load)
