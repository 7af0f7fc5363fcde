"""Build a model's optimizers, and decide for each whether to restore the state.

A weights file holds an optimizer's variables by their numbers alone: neither the optimizer's class, nor the variables
of the model that the slots are for. State that fits by its shapes may be another optimizer's (RMSprop and Adagrad), or
of other layers. So a writer puts a description of both into the record of its checkpoint (see `capture.optimizers`).
Without a description, the optimizer's name in the file is compared with the class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.utils.naming import to_snake_case

from remote_ckpt.capture import written_by
from remote_ckpt.capture.optimizers import class_of, describe
from remote_ckpt.restore._held import Held, Spec
from remote_ckpt.restore._outcome import Source
from remote_ckpt.restore._walk import Match, Matches, difference

_CLASSES = {
    to_snake_case(name): name
    for name, kind in vars(keras.optimizers).items()
    if isinstance(kind, type) and issubclass(kind, BaseOptimizer)
}


def places_in_file(held: Held, matches: Matches) -> set[str]:
    """Return the file's places with the state of an optimizer, also of optimizers absent from the model."""
    roots = set(matches.optimizers)
    for place, specs in held.groups.items():
        count = specs.get("0")  # an optimizer's first variable is its counter of iterations, an integer
        last = place.rpartition("/")[2]
        named = "opt" in last or _base(held.names.get(place, "")) in _CLASSES
        if named and count is not None and not count.shape and count.dtype.startswith("int"):
            roots.add(place)
    return {place for place in held.groups if any(_within(place, root) for root in roots)}


def restorable(model: Any, held: Held, matches: Matches, source: Source) -> tuple[list[Match], list[str]]:
    """Build the model's optimizers as far as the file has their state, and compare both.

    An optimizer may be built and then not fit: it then keeps its new, initial values.

    Args:
        model: Its weights were matched already.
        held: The file.
        matches: The matches of the model with the file.
        source: The checkpoint.

    Returns:
        The matches to load; and a sentence with the reason for each optimizer whose state cannot be restored.
    """
    loadable: list[Match] = []
    problems: list[str] = []
    for place, parts in _families(matches.optimizers):
        reason = _refusal(model, place, parts, held, source)
        if reason is None:
            loadable += [
                Match(part, where, written_by(part), frozenset(held.groups.get(where, ()))) for where, part in parts
            ]
        else:
            problems.append(f"{place} ({class_of(parts[0][1])}): {reason}")
    known = set(matches.optimizers)
    for place in sorted(places_in_file(held, matches)):
        if not any(_within(place, root) for root in known):
            known.add(place)
            hint = "; compile it before loading" if getattr(model, "optimizer", None) is None else ""
            problems.append(f"{place}: the model has no such optimizer{hint}")
    return loadable, problems


def _refusal(model: Any, place: str, parts: list[tuple[str, Any]], held: Held, source: Source) -> str | None:
    """Return why an optimizer's state cannot be restored, or None.

    Builds an optimizer that is not built, if its state in the file has more variables.
    """
    optimizer = parts[0][1]
    if not any(where in held.groups for where, _ in parts):
        return "the checkpoint has no state of it"
    saved = source.optimizers.get(place, "")
    if reason := _other_class(optimizer, saved.partition(":")[0], held.names.get(place, "")):
        return reason
    if not optimizer.built and len(held.groups.get(place, ())) > len(optimizer.variables):
        _build(model, place, optimizer, saved, held)
    if optimizer.built and saved and (now := describe(model, optimizer)) and now != saved:
        return "it was saved for other variables than it trains now (layers were frozen or unfrozen)"
    for where, part in parts:
        if reason := difference(held.groups.get(where, {}), written_by(part)):
            return _explained(part, held.groups.get(where, {}), reason)
    return None


def _other_class(optimizer: Any, saved: str, name: str) -> str | None:
    mine = class_of(optimizer)
    if saved:
        return None if saved == mine else f"the checkpoint has the state of {saved}"
    before = _base(name)
    mine_in_snake = to_snake_case(type(optimizer).__name__)
    if before in (mine_in_snake, _base(optimizer.name)) or before not in _CLASSES:
        return None
    return f"the checkpoint has the state of {_CLASSES[before]}"


def _explained(optimizer: Any, specs: dict[str, Spec], reason: str) -> str:
    if not optimizer.built:
        return "the variables that it trains are not known before it takes its first step"
    schedules = not any(variable is getattr(optimizer, "_learning_rate", None) for variable in optimizer.variables)
    rate = specs.get("1")
    if schedules and rate is not None and len(specs) == len(optimizer.variables) + 1:
        return f"it has a learning-rate schedule now, and was saved with a fixed learning rate ({reason})"
    if not schedules and len(specs) == len(optimizer.variables) - 1:
        return f"it has a fixed learning rate now, and was saved with a learning-rate schedule ({reason})"
    return f"it trains other variables, or has other settings, than when it was saved ({reason})"


def _build(model: Any, place: str, optimizer: Any, saved: str, held: Held) -> None:
    """Build an optimizer as the first training step would, if the trained variables can be found out."""
    chosen: list[Any] | None = None
    if optimizer is getattr(model, "optimizer", None):
        chosen = model.trainable_variables
    else:
        fitting = [
            variables for variables in _candidates(model) if _would_fit(model, optimizer, variables, saved, place, held)
        ]
        if len(fitting) == 1:
            chosen = fitting[0]
    if chosen:
        optimizer.build(chosen)


def _candidates(model: Any) -> Iterator[list[Any]]:
    """Yield sets of variables for an optimizer to train: of the model, of a layer attribute, or of a layer."""
    seen: set[tuple[int, ...]] = set()
    layers = [value for value in vars(model).values() if isinstance(value, keras.layers.Layer)]
    for owner in (model, *layers, *model.layers):
        variables = list(owner.trainable_variables)
        identity = tuple(map(id, variables))
        if variables and identity not in seen:
            seen.add(identity)
            yield variables


def _would_fit(model: Any, optimizer: Any, variables: list[Any], saved: str, place: str, held: Held) -> bool:
    if saved:
        return describe(model, optimizer, variables) == saved
    trial = type(optimizer).from_config(optimizer.get_config())
    trial.build(variables)
    return difference(held.groups.get(place, {}), written_by(trial)) is None


def _families(optimizers: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Yield each outer optimizer with all inner optimizers: all are restored, or none."""
    roots = [place for place in optimizers if not any(_within(place, other) for other in optimizers if other != place)]
    for root in roots:
        inside = [(place, one) for place, one in optimizers.items() if _within(place, root)]
        yield root, sorted(inside, key=lambda part: len(part[0]))


def variables_of(optimizers: Iterable[Any]) -> list[Any]:
    """Return all variables of optimizers, each once."""
    return list({id(variable): variable for one in optimizers for variable in one.variables}.values())


def _within(place: str, root: str) -> bool:
    return place == root or place.startswith(f"{root}/")


def _base(name: str) -> str:
    """Return an automatic name without the number at the end."""
    return re.sub(r"_\d+$", "", name)
