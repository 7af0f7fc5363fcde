"""The kept result of a walk: the variables to freeze at each save, and the layout of the file."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
from keras import Variable

from remote_ckpt.capture._freeze import freezer_for, to_numpy
from remote_ckpt.capture._snapshot import ReferenceSnapshot
from remote_ckpt.capture._structure_watch import StructureWatch
from remote_ckpt.capture._walk import WalkedSaveable, read_again, walk, write_as_keras
from remote_ckpt.weights_file import Dataset, TemplateWriter


class CapturePlan:
    """A walk through a model, repeatable without walking again. For the training thread."""

    def __init__(self, model: Any) -> None:
        """Let Keras walk the model.

        Raises:
            ValueError: The model is not built.
            Exception: Keras is not as expected, or a layer of the model fails to save. Nothing was changed.
        """
        if not model.built:
            raise ValueError("the model has not been built")
        watch = StructureWatch(model)
        self._entries, complete = walk(model, watch)
        self._watch = StructureWatch(model) if complete else None  # the walk itself may create attributes
        self._just_walked = True
        self._fresh: set[int] = set()
        self._read_afresh(i for i, entry in enumerate(self._entries) if not entry.repeatable)

    def snapshot(self, writer: TemplateWriter) -> ReferenceSnapshot | None:
        """Freeze the present model, or return None if the structure of the model changed since the walk."""
        if not self._bring_up_to_date():
            return None
        frozen = self._freezer.freeze()
        if frozen is None:
            return None
        layout, values = self._with_fresh(frozen) if self._fresh else (self._layout, frozen)
        return ReferenceSnapshot(layout, values, writer, to_numpy, layout.write_first)

    def _bring_up_to_date(self) -> bool:
        if self._just_walked:  # the first save uses what the walk found: no second walk
            self._just_walked = False
            return True
        changed = None if self._watch is None else self._watch.changes()
        if changed is None:
            return False
        if changed:
            self._read_afresh(i for i, entry in enumerate(self._entries) if id(entry.saveable) in changed)
        for i in self._fresh:
            self._entries[i] = read_again(self._entries[i])
        return True

    def _read_afresh(self, positions: Iterable[int]) -> None:
        """Ask the saveables of these entries again at each save from now on."""
        known = len(self._fresh)
        self._fresh.update(positions)
        if len(self._fresh) > known or not hasattr(self, "_freezer"):
            kept = [entry for i, entry in enumerate(self._entries) if i not in self._fresh]
            self._freezer = freezer_for([value for entry in kept for _, value in entry.steps])
            self._layout = FileLayout([describe(entry) for entry in self._entries])

    def _with_fresh(self, frozen: list[Any]) -> tuple[FileLayout, list[Any]]:
        """Merge the values read afresh with the frozen values, in the order of the file."""
        described = list(self._layout.entries)
        fresh = [value for i in sorted(self._fresh) for _, value in self._entries[i].steps]
        variables = [value for value in fresh if isinstance(value, Variable)]
        read_now = iter(freezer_for(variables).freeze() or ())
        kept = iter(frozen)
        values: list[Any] = []
        for i, entry in enumerate(self._entries):
            if i in self._fresh:
                described[i] = describe(entry)
                values += [next(read_now) if isinstance(value, Variable) else value for _, value in entry.steps]
            else:
                values += islice(kept, len(entry.steps))
        return FileLayout(described), values


def describe(entry: WalkedSaveable) -> WalkedSaveable:
    """Return an entry with shapes and dtypes in place of values, holding no reference to the model."""
    return entry._replace(saveable=None, steps=[(key, _shape_and_dtype(value)) for key, value in entry.steps])


class FileLayout:
    """The layout of a weights file, without the data; see `weights_file.Layout`."""

    def __init__(self, entries: Sequence[WalkedSaveable]) -> None:
        """Take described entries; all else is computed on demand by the writing thread."""
        self.entries = entries

    @functools.cached_property
    def key(self) -> Hashable:
        return tuple(
            (entry.path, None if entry.metadata is None else tuple(entry.metadata.items()), tuple(entry.steps))
            for entry in self.entries
        )

    @functools.cached_property
    def datasets(self) -> list[Dataset] | None:
        if any(spec is None for entry in self.entries for _, spec in entry.steps):
            return None
        return [
            Dataset("/".join(filter(None, (entry.path, "vars", key))), *spec)
            for entry in self.entries
            for key, spec in entry.steps
        ]

    @functools.cached_property
    def nbytes(self) -> int:
        """The bytes of the tensors, without HDF5's own bytes."""
        specs = [spec for entry in self.entries for _, spec in entry.steps if spec is not None]
        return sum(math.prod(shape) * _item_size(dtype) for shape, dtype in specs)

    def write_first(self, path: Any, take: Any) -> None:
        """Write a file of this layout through Keras's own store."""
        write_as_keras(path, self.entries, take)


def _shape_and_dtype(value: Any) -> tuple[tuple[int, ...], str] | None:
    if value is None:
        return None
    dtype = value.dtype
    return tuple(value.shape), dtype if isinstance(dtype, str) else dtype.name


@functools.cache
def _item_size(dtype: str) -> int:
    import ml_dtypes  # a dependency of Keras; gives NumPy bfloat16 and the small floats

    return np.dtype(getattr(ml_dtypes, dtype, dtype)).itemsize
