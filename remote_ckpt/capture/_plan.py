"""The kept outcome of one walk: what to freeze at each save, and what the file will look like."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from keras import Variable

from remote_ckpt.capture._freeze import Freezer, freezer_for, to_numpy
from remote_ckpt.capture._snapshot import ReferenceSnapshot
from remote_ckpt.capture._walk import Entry, read_again, walk, write_as_keras
from remote_ckpt.capture._watch import StructureWatch
from remote_ckpt.weights_file import Dataset, TemplateWriter


class Plan:
    """One walk through one model, and how to repeat its outcome without walking. For the training thread."""

    def __init__(self, model: Any) -> None:
        """Let Keras walk the model.

        Raises:
            Exception: Keras is not as expected, or a layer of the model fails to save. Nothing was changed.
        """
        if not model.built:
            raise ValueError("the model has not been built")
        watch = StructureWatch(model)
        entries, complete = walk(model, watch)
        self._watch = StructureWatch(model) if complete else None  # the walk itself may create attributes
        self._entries = [entry if entry.repeatable else None for entry in entries]
        self._fresh: dict[int, Entry] = {i: e for i, e in enumerate(entries) if not e.repeatable}
        self._just_walked: list[Entry] | None = entries
        self._variables = [v for entry in self._entries if entry for _, v in entry.steps]
        self._freezer: Freezer = freezer_for(self._variables)
        self._layout = FileLayout(entries)

    def snapshot(self, writer: TemplateWriter) -> ReferenceSnapshot | None:
        """Freeze the model as it is now, or return None when its structure changed since the walk."""
        entries = self._current_entries()
        frozen = None if entries is None else self._freezer.freeze()
        if entries is None or frozen is None:
            return None
        layout = self._layout
        if self._fresh:
            layout = FileLayout(entries)
            frozen = self._merge(entries, frozen)
        return ReferenceSnapshot(layout, frozen, layout.nbytes, writer, to_numpy, layout.write_first)

    def _current_entries(self) -> list[Entry] | None:
        """Return all entries as they are now; those of the walk itself the first time, to walk once and never twice."""
        walked, self._just_walked = self._just_walked, None
        if walked is not None:
            return walked
        if self._watch is None or not self._watch.unchanged():
            return None
        return [entry or read_again(self._fresh[i]) for i, entry in enumerate(self._entries)]

    def _merge(self, entries: list[Entry], frozen: list[Any]) -> list[Any]:
        """Put what was read afresh between the frozen values, in the order of the file."""
        repeated = iter(frozen)
        steps = [(self._entries[i] is not None, value) for i, e in enumerate(entries) for _, value in e.steps]
        fresh = [value for kept, value in steps if not kept and isinstance(value, Variable)]
        read_now = iter(freezer_for(fresh).freeze() or []) if fresh else iter(())
        return [
            next(repeated) if kept else next(read_now) if isinstance(value, Variable) else value
            for kept, value in steps
        ]


class FileLayout:
    """What a weights file looks like outside its data; see `weights_file.Layout`."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = [
            entry._replace(saveable=None, steps=[(key, _shape_and_dtype(value)) for key, value in entry.steps])
            for entry in entries
        ]

    @functools.cached_property
    def key(self) -> Hashable:
        return tuple(
            (entry.path, None if entry.metadata is None else tuple(entry.metadata.items()), tuple(entry.steps))
            for entry in self._entries
        )

    @functools.cached_property
    def datasets(self) -> list[Dataset] | None:
        if any(spec is None for entry in self._entries for _, spec in entry.steps):
            return None
        return [
            Dataset("/".join(filter(None, (entry.path, "vars", key))), *spec)
            for entry in self._entries
            for key, spec in entry.steps
        ]

    @functools.cached_property
    def nbytes(self) -> int:
        """The bytes of the tensors, without what HDF5 puts around them."""
        specs = [spec for entry in self._entries for _, spec in entry.steps if spec is not None]
        return sum(math.prod(shape) * _item_size(dtype) for shape, dtype in specs)

    def write_first(self, path: Any, take: Any) -> None:
        """Write such a file through Keras's own store."""
        write_as_keras(path, self._entries, take)


def _shape_and_dtype(value: Any) -> tuple[tuple[int, ...], str] | None:
    if value is None:
        return None
    dtype = value.dtype
    return tuple(value.shape), dtype if isinstance(dtype, str) else dtype.name


@functools.cache
def _item_size(dtype: str) -> int:
    import ml_dtypes  # a dependency of Keras; gives NumPy bfloat16 and the small floats

    return np.dtype(getattr(ml_dtypes, dtype, dtype)).itemsize
