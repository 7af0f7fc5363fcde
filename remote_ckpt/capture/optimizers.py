"""Facts about optimizers missing from a weights file: the class, and the model variables behind the slots."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from typing import Any


def class_of(optimizer: Any) -> str:
    """Return the name of an optimizer's class, with the class of a wrapped optimizer in parentheses."""
    inner = getattr(optimizer, "inner_optimizer", None)
    name = type(optimizer).__name__
    return name if inner is None else f"{name}({class_of(inner)})"


def describe(model: Any, optimizer: Any, variables: Sequence[Any] | None = None) -> str:
    """Return an optimizer's class, with a digest of the trained variables' positions in the model.

    Args:
        model: Built.
        optimizer: Built, unless `variables` are given.
        variables: The variables that it trains; by default those that it was built for.

    Returns:
        `"Adam:1f0c29ab"`; the same in every process that builds the same model. Empty if it trains a variable that
        is not among the model's weights.
    """
    trained = _trained(optimizer) if variables is None else variables
    places = {id(variable): number for number, variable in enumerate(model.weights)}
    try:
        numbers = [places[id(variable)] for variable in trained]
    except KeyError:
        return ""
    digest = hashlib.sha256(",".join(map(str, numbers)).encode()).hexdigest()[:8]
    return f"{class_of(optimizer)}:{digest}"


def _trained(optimizer: Any) -> Sequence[Any]:
    inner = getattr(optimizer, "inner_optimizer", None)
    return _trained(inner) if inner is not None else getattr(optimizer, "_trainable_variables", ())


class OptimizerNotes:
    """Describe the optimizers of a model for the records; anew only if an optimizer was built or replaced."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, int, str]] = {}

    def of(self, model: Any) -> dict[str, str]:
        """Return a description of each built optimizer, by place in the file. For the training thread.

        A model that cannot be described is saved all the same, without descriptions.
        """
        try:
            return self._of(model)
        except Exception:  # noqa: BLE001 - a surprise in Keras's private parts must not cost a checkpoint
            return {}

    def _of(self, model: Any) -> dict[str, str]:
        found = {place: one for place, one in _optimizers(model) if getattr(one, "built", False)}
        for place, one in found.items():
            known = self._known.get(place)
            if known is None or known[0] is not one or known[1] != len(_trained(one)):
                self._known[place] = (one, len(_trained(one)), describe(model, one))
        return {place: text for place in found if (text := self._known[place][2])}


def _optimizers(model: Any) -> list[tuple[str, Any]]:
    """Return the optimizers among a model's own attributes, with the names of the attributes."""
    if "keras" not in sys.modules:
        return []
    from keras.src.optimizers.base_optimizer import BaseOptimizer

    return [(name, value) for name, value in vars(model).items() if isinstance(value, BaseOptimizer)]
