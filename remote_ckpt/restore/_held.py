"""The arrays of a weights file: names, shapes and dtypes without data; and a store for Keras to read from."""

from __future__ import annotations

import re
from collections.abc import KeysView
from typing import Any, NamedTuple

import h5py
import ml_dtypes
import numpy as np
from keras.src.saving import saving_lib

_VARS = "vars"
_OLD_LAYERS = "_layer_checkpoint_dependencies"  # `layers` in files of Keras 2.13, see Keras's `H5IOStore.get`


class Spec(NamedTuple):
    """The shape and dtype of an array."""

    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, value: Any) -> Spec:
        """Return the spec of a variable, an array or a dataset."""
        dtype = value.dtype
        return cls(tuple(value.shape), dtype if isinstance(dtype, str) else dtype.name)

    def fits(self, other: Spec, *, cast: bool = False) -> bool:
        """Return whether an array of this spec can be assigned to a variable of the `other` spec.

        Shapes must be equal, and dtypes too, with three exceptions. Integers without dimensions (counters) may differ
        in width, because backends count with different widths. An array of dtype `void` fits every dtype. With `cast`,
        floats of any width fit.
        """
        if self.shape != other.shape:
            return False
        mine, its = _kind(self.dtype), _kind(other.dtype)
        if mine == its == "i":
            return self.dtype == other.dtype or not self.shape
        return self.dtype == other.dtype or mine == "void" or (cast and mine == its == "f")

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def _kind(dtype: str) -> str:
    if "float" in dtype:
        return "f"
    return "i" if dtype.startswith("int") else "void" if dtype.startswith("void") else dtype


class Held:
    """The arrays of a file in Keras's layout, by the place in the model of the layer or optimizer."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self.groups: dict[str, dict[str, Spec]] = {}
        """Place in the model -> key -> spec of the array; places without arrays are left out."""
        self.names: dict[str, str] = {}
        """Place in the model -> name of the layer or optimizer when the file was saved."""
        file.visititems(self._note)

    def _note(self, path: str, found: Any) -> None:
        place, _, last = path.rpartition("/")
        if isinstance(found, h5py.Dataset) and place.rpartition("/")[2] == _VARS:
            stored = found.attrs.get("dtype")
            spec = Spec.of(found)
            if isinstance(stored, str):  # Keras writes "bfloat16" to an attribute: h5py reads such an array as void
                spec = spec._replace(dtype=stored)
            self.groups.setdefault(place.removesuffix(_VARS).rstrip("/"), {})[last] = spec
        elif last == _VARS and isinstance(name := found.attrs.get("name"), str):
            self.names[place] = name

    def at(self, place: str) -> str:
        """Return the place in the file for Keras's `place`: files of Keras 2.13 have another name for `layers`."""
        if place not in self.groups and _OLD_LAYERS in self._file:
            return place.replace("layers", _OLD_LAYERS)
        return place

    def below(self, place: str) -> bool:
        """Return whether the file has a group at `place`."""
        return place in self._file

    def read(self, place: str, key: str) -> np.ndarray:
        """Return the data of an array."""
        dataset = self._file[dataset_name(place, key)]
        custom = dataset.attrs.get("dtype") == "bfloat16"
        return np.array(dataset, dtype=ml_dtypes.bfloat16) if custom else np.array(dataset)


def dataset_name(place: str, key: str) -> str:
    """Return an array's name in the file."""
    return "/".join(filter(None, (place, _VARS, key)))


def in_order(places: Any) -> list[str]:
    """Return places in the order in which Keras numbers them: `dense_2` before `dense_10`."""
    return sorted(places, key=lambda place: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", place)])


class Reading(saving_lib.H5IOStore):  # type: ignore[misc]  # Keras ships no types
    """A read-only store for Keras's loading methods; `read` records each array read.

    A subclass of `H5IOStore`, because Keras's loader accepts no other class. `get` changes the present place and
    returns this same object, so only one place can be in use at a time.
    """

    def __init__(self, held: Held) -> None:
        self.mode = "r"
        self._held = held
        self._place = ""
        self.read: set[tuple[str, str]] = set()

    def __bool__(self) -> bool:
        return True  # or `__len__` of the present place would decide, and Keras's loader skips a false store

    def get(self, path: str) -> Reading:
        self._place = self._held.at(path)
        return self

    def has_path(self, path: str) -> bool:
        return self._held.below(path)

    def _here(self) -> dict[str, Spec]:
        return self._held.groups.get(self._place, {})

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self._here():
            raise KeyError(key)
        self.read.add((self._place, key))
        return self._held.read(self._place, key)

    def __contains__(self, key: object) -> bool:
        return key in self._here()

    def __len__(self) -> int:
        return len(self._here())

    def keys(self) -> KeysView[str]:
        return self._here().keys()

    def close(self) -> None:
        """Do nothing: the caller opened the file, and closes the file."""
