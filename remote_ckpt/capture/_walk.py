"""Run Keras's own walk once against a recording store, and keep the result.

`model.save_weights` visits every saveable and lets it write into an `H5IOStore`. Here the saveables write into a
recorder instead. So the order, the paths and the attributes of the file are determined by Keras itself. For each
dataset the recorder keeps the value that was written: if that is a variable, the variable itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, KeysView, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from keras import Variable
from keras.src import backend
from keras.src.saving import saving_lib

from remote_ckpt.capture._apart import apart
from remote_ckpt.capture._structure_watch import StructureWatch, names_to_skip

_KERAS = "keras."
_BASE_OPTIMIZER = "keras.src.optimizers.base_optimizer"


class WalkedSaveable(NamedTuple):
    """The writes of a saveable: the path, the attributes, and the values in order (None: the key was deleted).

    `saveable` is None if Keras reached the saveable in a way that `StructureWatch` does not see.
    """

    saveable: Any
    path: str
    metadata: dict[str, str] | None
    steps: list[tuple[str, Any]]

    @property
    def repeatable(self) -> bool:
        """Whether the same variables are written as long as the saveable's attributes are the same objects.

        This holds for Keras's own layers, as long as they write variables only. A value that is not a variable was
        computed for this save, and a method that is not Keras's may depend on anything.
        """
        if self.saveable is None or "save_own_variables" in vars(self.saveable):
            return False
        method = type(self.saveable).save_own_variables
        return method.__module__.startswith(_KERAS) and all(isinstance(value, Variable) for _, value in self.steps)


class Recorder(saving_lib.H5IOStore):  # type: ignore[misc]  # Keras ships no types
    """An `H5IOStore` without a file: records the writes, and answers reads as the file would."""

    def __init__(self) -> None:
        self.mode = "w"
        self.entries: list[WalkedSaveable] = []
        self._open: WalkedSaveable | None = None

    def __bool__(self) -> bool:
        return True

    def make(self, path: str, metadata: dict[str, str] | None = None) -> Recorder:
        self._open = WalkedSaveable(None, path, metadata, [])
        return self

    def close_entry(self, saveable: Any) -> None:
        """Assign the entry written since `make`, if any, to `saveable`."""
        if self._open is not None:
            self.entries.append(self._open._replace(saveable=saveable))
            self._open = None

    def _now(self) -> dict[str, Any]:
        assert self._open is not None
        now: dict[str, Any] = {}
        for key, value in self._open.steps:
            now.pop(key, None)
            if value is not None:
                now[key] = value
        return now

    def __setitem__(self, key: str, value: Any) -> None:
        assert self._open is not None
        if not isinstance(value, Variable):
            value = backend.convert_to_numpy(value)
            backend.standardize_dtype(value.dtype)  # raises for what Keras does not save, such as strings
        self._open.steps.append((key, value))

    def __delitem__(self, key: str) -> None:
        assert self._open is not None
        if key not in self._now():
            raise KeyError(key)
        self._open.steps.append((key, None))

    def __getitem__(self, key: str) -> Any:
        return backend.convert_to_numpy(self._now()[key])

    def __contains__(self, key: object) -> bool:
        return key in self._now()

    def __len__(self) -> int:
        return len(self._now())

    def keys(self) -> KeysView[str]:
        return self._now().keys()

    def close(self) -> None:
        """Do nothing: there is no file."""


class _Visited(set[int]):
    """Keras's set of visited saveables: each addition assigns the recorder's newest entry to the saveable."""

    def __init__(self, recorder: Recorder, saveables: dict[int, Any]) -> None:
        super().__init__()
        self._recorder = recorder
        self._saveables = saveables

    def add(self, identity: int) -> None:
        super().add(identity)
        self._recorder.close_entry(self._saveables.get(identity))


def walk(model: Any, watch: StructureWatch) -> tuple[list[WalkedSaveable], bool]:
    """Let Keras walk the model once.

    Args:
        model: A built model.
        watch: Made of the same model just before.

    Returns:
        The entries in the order of the file, and whether the walk may be kept: if `watch` watches every saveable that
        the walk visited.
    """
    recorder = Recorder()
    visited = _Visited(recorder, watch.saveables)
    with skipping_by_heart(), _optimizers_by_reference(watch.saveables):
        saving_lib._save_state(
            model, weights_store=recorder, assets_store=None, inner_path="", visited_saveables=visited
        )
    return recorder.entries, watch.reaches(visited)


def read_again(entry: WalkedSaveable) -> WalkedSaveable:
    """Record again the present writes of a saveable, under the path from the walk."""
    recorder = Recorder()
    recorder.make(entry.path, entry.metadata and {**entry.metadata, "name": entry.saveable.name})
    with _optimizers_by_reference({0: entry.saveable}):
        entry.saveable.save_own_variables(recorder)
    recorder.close_entry(entry.saveable)
    return recorder.entries[0]


def written_by(saveable: Any) -> dict[str, Any]:
    """Return the present writes of a saveable, by key: a variable itself wherever a variable is written.

    Raises:
        Exception: Whatever the saveable's `save_own_variables` raises.
    """
    recorder = Recorder()
    recorder.make("")
    with _optimizers_by_reference({0: saveable}):
        saveable.save_own_variables(recorder)
    return recorder._now()


def write_as_keras(path: Path, entries: Sequence[WalkedSaveable], take: Callable[[int], np.ndarray]) -> None:
    """Write a weights file through Keras's own store: the same calls in the same order as `save_weights` makes.

    Args:
        path: Replaced if it exists.
        entries: From a walk. Of their values only None, a deletion, is used.
        take: Gives the data of value i, counted over all entries and deletions, once.
    """
    store = saving_lib.H5IOStore(path, mode="w")
    try:
        index = 0
        for entry in entries:
            target = store.make(entry.path, metadata=entry.metadata)
            for key, value in entry.steps:
                if value is None:
                    del target[key]
                else:
                    target[key] = take(index)
                index += 1
    finally:
        store.close()


def _names_to_skip(kind: str) -> set[str]:
    with apart():  # in a joint training, perhaps only this process asks for the first time: see `apart`
        names: set[str] = names_to_skip(kind)
        return names


@contextlib.contextmanager
def skipping_by_heart() -> Iterator[None]:
    """Let Keras's walk look up the attribute names to skip in a cache.

    Without the cache Keras computes the names anew for each layer, which takes two thirds of the walk's time. The
    function is replaced for the whole process until the walk ends.
    """
    original = saving_lib.get_attr_skipset
    saving_lib.get_attr_skipset = _names_to_skip
    try:
        yield
    finally:
        saving_lib.get_attr_skipset = original


@contextlib.contextmanager
def _optimizers_by_reference(saveables: dict[int, Any]) -> Iterator[None]:
    """Let Keras's optimizers write their variables instead of copies.

    `BaseOptimizer.save_own_variables` stores `variable.numpy()` for each of `self.variables`: a copy of twice the
    model (with Adam), made only to be thrown away. During the walk each optimizer runs the same method on a stand-in
    whose variables answer `numpy()` with themselves.
    """
    changed = []
    for saveable in saveables.values():
        method = getattr(type(saveable), "save_own_variables", None)
        own = getattr(saveable, "__dict__", {})
        if getattr(method, "__module__", "") == _BASE_OPTIMIZER and "save_own_variables" not in own:
            own["save_own_variables"] = _on_stand_in(method, saveable)
            changed.append(own)
    try:
        yield
    finally:
        for own in changed:
            del own["save_own_variables"]


def _on_stand_in(method: Any, optimizer: Any) -> Callable[[Any], None]:
    def save_own_variables(store: Any) -> None:
        variables = [SimpleNamespace(numpy=lambda v=v: v) for v in optimizer.variables]
        method(SimpleNamespace(variables=variables), store)

    return save_own_variables
