"""Notice within a fraction of a millisecond that a model is no longer built as it was when Keras walked it.

Keras's walk looks at the attributes of every saveable (layers, optimizer, metrics, losses) and into their lists, dicts
and tuples. Its outcome can change only if one of those does. So all of them are remembered, and compared by identity in
one loop in C.

Detected: an attribute of a layer, optimizer, metric or loss that was added, removed or is another object than before
(layer added, optimizer built or replaced, LoRA, quantization, `trainable`, a new dtype policy, a flag), and any change
of a list or dict that Keras walks. Of a model itself, only attributes that hold saveables or containers count: it also
holds what changes with every `fit` (functions, histories, iterators).

Not detected: what no attribute of an instance shows, such as saveables that a property conjures up from elsewhere,
`__slots__`, a class whose attributes are changed, or an array changed in place. The first kind is noticed at the walk
(`reaches`); layers that write more than variables are read afresh at each save anyway.

Objects compared are held until the next walk, so that no new object can take the identity of an old one.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Any

from keras.src.models.model import Model
from keras.src.saving.keras_saveable import KerasSaveable
from keras.src.saving.saving_lib import get_attr_skipset

_CONTAINERS = (list, dict, tuple, set)
# Bookkeeping that Keras's walk skips and no layer writes: symbolic losses, graph nodes, call signatures.
_BOOKKEEPING = frozenset(
    {
        "_build_shapes_dict",
        "_call_context_args",
        "_call_has_context_arg",
        "_compiled_trainable_state",
        "_inbound_nodes",
        "_loss_ids",
        "_losses",
        "_losses_override",
        "_nodes",
        "_nodes_by_depth",
        "_operations_by_depth",
        "_outbound_nodes",
        "_tracked",
        "_trainable_variables_indices",
        "call_signature_parameters",
    }
)


class StructureWatch:
    """What a model looked like when it was built, to be asked whether it still does. For one thread."""

    def __init__(self, model: Any) -> None:
        self.saveables: dict[int, Any] = {}
        """Every saveable that attributes and containers lead to, by id."""
        self._containers: dict[int, Any] = {}
        self._sources: list[Collection[Any]] = []
        self._models: list[tuple[dict[str, Any], list[Any]]] = []
        self._visit_all(model)
        self._lengths = list(map(len, self._sources))
        self._flat = list(chain.from_iterable(self._sources))

    def unchanged(self) -> bool:
        """Return whether the model is built as it was."""
        try:
            return (
                list(map(len, self._sources)) == self._lengths
                and all(map(operator.is_, chain.from_iterable(self._sources), self._flat))
                and all(_same(list(_structure(attributes)), seen) for attributes, seen in self._models)
            )
        except RuntimeError:  # a dict changed its size while it was read
            return False

    def reaches(self, ids: Iterable[int]) -> bool:
        """Return whether all objects with these ids are watched."""
        return self.saveables.keys() >= set(ids)

    def _visit_all(self, model: Any) -> None:
        pending: list[Any] = [model]
        while pending:
            pending.extend(self._visit(pending.pop()))

    def _visit(self, found: Any) -> Iterator[Any]:
        if isinstance(found, KerasSaveable):
            if id(found) not in self.saveables:
                self.saveables[id(found)] = found
                yield from self._visit_attributes(found)
        elif id(found) not in self._containers:
            self._containers[id(found)] = found
            elements = found.values() if isinstance(found, dict) else found
            if not isinstance(found, tuple):
                self._sources.append(elements)
            yield from (element for element in elements if isinstance(element, (KerasSaveable, *_CONTAINERS)))

    def _visit_attributes(self, saveable: Any) -> Iterator[Any]:
        attributes = vars(saveable)
        structure = list(_structure(attributes))
        if isinstance(saveable, Model):
            self._models.append((attributes, structure))
        else:
            self._sources.append(attributes.values())
            if not get_attr_skipset(saveable._obj_type()).issuperset(structure[::2]):
                self._sources.append(attributes.keys())  # names that become paths
        yield from structure[1::2]


def _structure(attributes: dict[str, Any]) -> Iterator[Any]:
    """Give name, value, name, value, … of the attributes that Keras's walk may look into."""
    for name, value in attributes.items():
        if isinstance(value, (KerasSaveable, *_CONTAINERS)) and not (name in _BOOKKEEPING or name.startswith("_self_")):
            yield name
            yield value


def _same(now: list[Any], before: list[Any]) -> bool:
    return len(now) == len(before) and all(map(operator.is_, now, before))
