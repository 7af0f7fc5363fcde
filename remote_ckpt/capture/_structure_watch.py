"""Detect changes in the structure of a model since Keras's walk, within a fraction of a millisecond.

Keras's walk looks at the attributes of every saveable (layers, optimizer, metrics, losses) and into their lists, dicts
and tuples. The result of a walk can change only if one of these changes. So all of them are remembered, and compared by
identity in one loop in C.

Detected as a change of structure: an attribute that holds a saveable, a variable or a container was added, removed or
replaced (layer added, optimizer built or compiled anew, LoRA, quantization), or other ones are in a list or dict.
Detected as a change of one saveable: any other attribute of a layer, optimizer, metric or loss is another object than
before (`trainable`, a dtype policy, a name, a flag, a number), or any other element of its lists and dicts. Of a model
itself only the first kind counts: it also holds what changes with every `fit` (functions, histories, iterators).

Not detected: changes that no attribute of an instance shows, such as saveables that a property takes from elsewhere,
`__slots__`, a changed attribute of a class, or an array changed in place. The first kind is found at the walk
(`reaches`); saveables that write more than variables, or by a method that is not Keras's, are asked at each save.

Objects compared are held until the next comparison, so that no new object can take the identity of an old one.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

from keras import Variable
from keras.src.models.model import Model
from keras.src.saving import saving_lib
from keras.src.saving.keras_saveable import KerasSaveable

_CONTAINERS = (list, dict, tuple, set)
_STRUCTURE = (KerasSaveable, Variable, *_CONTAINERS)
# Bookkeeping that leads to no saveable and that no layer writes: symbolic losses, graph nodes, call signatures.
_BOOKKEEPING = frozenset(
    {
        "_build_shapes_dict",
        "_call_context_args",
        "_call_has_context_arg",
        "_compiled_trainable_state",
        "_inbound_nodes",
        "_jax_state",
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

# The attribute names that Keras's walk skips, by type of saveable. Keras intends to cache them, but reads the cache
# under another name than it writes it (3.10 to 3.15), and so makes a new layer for each layer that it visits.
names_to_skip = functools.cache(saving_lib.get_attr_skipset)


class _Part(NamedTuple):
    """A unit of comparison: the attributes of a saveable, or a container among these attributes."""

    owner: int
    elements: Collection[Any]
    structure: Callable[[], list[Any]]
    seen: list[Any]


class StructureWatch:
    """The structure of a model when the watch was made, and changes since. For a single thread."""

    def __init__(self, model: Any) -> None:
        self.saveables: dict[int, Any] = {}
        """Every saveable that attributes and containers lead to, by id."""
        self._containers: dict[int, Any] = {}
        self._parts: list[_Part] = []
        self._models: list[_Part] = []
        pending: list[tuple[Any, int]] = [(model, id(model))]
        while pending:
            pending.extend(self._visit(*pending.pop()))
        self._sources = [part.elements for part in self._parts]
        self._remember()

    def changes(self) -> set[int] | None:
        """Return the ids of the saveables changed since the last call, or None if the structure changed.

        An empty set, the usual answer, means that each saveable would write the same variables as before. After None a
        new watch is needed.
        """
        try:
            if not all(_same(part.structure(), part.seen) for part in self._models):
                return None
            return set() if self._is_as_remembered() else self._look_closer()
        except RuntimeError:  # another thread changed the size of a dict during the loop
            return None

    def reaches(self, ids: Iterable[int]) -> bool:
        """Return whether all objects with these ids are watched."""
        return self.saveables.keys() >= set(ids)

    def _remember(self) -> None:
        self._lengths = list(map(len, self._sources))
        self._flat = list(chain.from_iterable(self._sources))

    def _is_as_remembered(self) -> bool:
        """Compare everything in a single loop in C: some microseconds for each layer."""
        return list(map(len, self._sources)) == self._lengths and all(
            map(operator.is_, chain.from_iterable(self._sources), self._flat)
        )

    def _look_closer(self) -> set[int] | None:
        touched: set[int] = set()
        before = iter(self._flat)
        for part, length in zip(self._parts, self._lengths, strict=True):
            if _same(part.elements, list(islice(before, length))):
                continue
            if not _same(part.structure(), part.seen):
                return None
            touched.add(part.owner)
        self._remember()
        return touched

    def _visit(self, found: Any, owner: int) -> Iterator[tuple[Any, int]]:
        if isinstance(found, KerasSaveable):
            if id(found) not in self.saveables:
                self.saveables[id(found)] = found
                yield from self._visit_attributes(found)
        elif isinstance(found, _CONTAINERS) and id(found) not in self._containers:
            self._containers[id(found)] = found
            elements = found.values() if isinstance(found, dict) else found
            structure = _elements(elements)
            if not isinstance(found, tuple):
                self._parts.append(_Part(owner, elements, functools.partial(_elements, elements), structure))
            yield from ((element, owner) for element in structure)

    def _visit_attributes(self, saveable: Any) -> Iterator[tuple[Any, int]]:
        attributes = vars(saveable)
        structure = _attributes(attributes)
        part = _Part(id(saveable), attributes.values(), functools.partial(_attributes, attributes), structure)
        if isinstance(saveable, Model):
            self._models.append(part)
        else:
            self._parts.append(part)
            if not names_to_skip(saveable._obj_type()).issuperset(structure[::2]):
                self._parts.append(part._replace(elements=attributes.keys()))  # names that become paths
        yield from ((value, id(saveable)) for value in structure[1::2])


def _attributes(attributes: dict[str, Any]) -> list[Any]:
    """Return name, value, name, value, … of the attributes relevant to Keras's walk."""
    found: list[Any] = []
    for name, value in attributes.items():
        if isinstance(value, _STRUCTURE) and name not in _BOOKKEEPING and not name.startswith("_self_"):
            found += name, value
    return found


def _elements(elements: Iterable[Any]) -> list[Any]:
    return [element for element in elements if isinstance(element, _STRUCTURE)]


def _same(now: Collection[Any], before: Collection[Any]) -> bool:
    return len(now) == len(before) and all(map(operator.is_, now, before))
