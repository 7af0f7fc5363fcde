"""Checks of an HDF5 file before a loader opens the file.

Keras's loader trusts the file's structure: it follows links to other files, and allocates the shapes that are declared.
Here no soft or external link is followed and no array is allocated: every object is examined once, by the low-level
interface of h5py, within bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t

from remote_ckpt.errors import CorruptCheckpointError
from remote_ckpt.weights_file import _heaps as heaps

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Our own writers must stay within these limits: `check_written` refuses other files before they are uploaded.
MAX_OBJECTS = 1_000_000  # a model of 5,000 variables makes about 15,000; a million are examined in half a minute
MAX_DEPTH = 1_000  # a nested model takes two levels; Python's recursion ends Keras's own walk at about that depth
MAX_ATTRIBUTES = 1_000  # legacy whole-model files have about five at an object
_FLOOR = 64 << 20  # bytes any file may declare, however small it is
_EXPANSION = 2  # times its size that a file may declare
_TEXT = 512  # bytes that one text takes, Python's object for it included
_SCALAR_CLASSES = frozenset({h5t.INTEGER, h5t.FLOAT, h5t.ENUM, h5t.STRING})


def check(path: Path, *, max_bytes: int | None = None) -> None:
    """Check an HDF5 file: complete, and nothing but arrays inside.

    Reads the metadata only; where a loader may read texts of variable length, also the whole file, in small blocks.
    Changes nothing.

    Refused: a file that is not HDF5 or is truncated; soft, external and looping links; data in other files, virtual or
    overlapping; data in chunks, and with it all compression: Keras writes none, and the HDF5 library (1.14) reads past
    its buffers where a chunk's filters were tampered with; texts that the HDF5 library would read without end; types
    other than numbers, booleans and strings; shapes without data; more than a million objects, a thousand levels, or a
    thousand attributes of one object. Bounded in time and memory by those limits.

    Args:
        path: A local file, from anywhere.
        max_bytes: The most that the file's arrays may take in memory. Default: 64 MiB, or twice the file's size if that
            is more.

    Raises:
        CorruptCheckpointError: The file is not safe to load; the message gives the reason and the place.
        OSError: The file cannot be read at all.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            raise CorruptCheckpointError(f"{path}: not an HDF5 file ({size} bytes); damaged, or something else")
        check_opened(lambda: h5py.File(path, "r"), file, str(path), size, max_bytes)


def check_opened(
    open_file: Callable[[], h5py.File], raw: IO[bytes], name: str, size: int, max_bytes: int | None
) -> None:
    """Check an HDF5 file, already open as bytes.

    Args:
        open_file: Opens the file with h5py.
        raw: The same file's bytes; the position is changed.
        name: The file's name, for messages.
        size: Of the file, in bytes.
        max_bytes: As in `check`.

    Raises:
        CorruptCheckpointError: As in `check`; also where the file cannot be read.
    """
    inspection = _Inspection(name, size, max_bytes)
    try:
        with open_file() as file:
            inspection.run(file)
        if inspection.has_texts and (problem := heaps.problem(raw, size)):
            raise CorruptCheckpointError(f"{name}: not safe to load: {problem}")
    except CorruptCheckpointError:
        raise
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, UnicodeError, OverflowError) as exc:
        # h5py translates the HDF5 library's errors about damaged metadata into these classes.
        raise CorruptCheckpointError(f"{name}: damaged or truncated HDF5 file ({size} bytes): {exc}") from exc


class _Inspection:
    """A bounded walk through a file.

    Attributes:
        has_texts: Whether a loader may read texts of variable length; HDF5 stores them in global heaps.
    """

    def __init__(self, name: str, size: int, max_bytes: int | None) -> None:
        self._name = name
        self._size = size
        self._limit = max(_FLOOR, _EXPANSION * size) if max_bytes is None else max_bytes
        self._seen: set[int] = set()
        self._declared = 0
        self._runs: list[tuple[int, int]] = []
        self.has_texts = False

    def run(self, file: h5py.File) -> None:
        root = h5o.open(file.id, b"/")
        pending: list[tuple[h5g.GroupID, str, int]] = [(root, "", 0)]
        self._note(root, "/")
        while pending:
            group, where, depth = pending.pop()
            for link in self._links(group, where or "/"):
                place = f"{where}/{link.decode('utf-8', 'replace')}"
                child = h5o.open(group, link)
                self._note(child, place)
                if isinstance(child, h5g.GroupID):
                    if depth + 1 > MAX_DEPTH:
                        raise self._refusal(f"more than {MAX_DEPTH} levels of groups", place)
                    pending.append((child, place, depth + 1))
                elif isinstance(child, h5d.DatasetID):
                    self._dataset(child, place)
                else:
                    raise self._refusal("an object that is neither a group nor a dataset", place)
        self._overlaps()

    def _links(self, group: h5g.GroupID, where: str) -> list[bytes]:
        names: list[bytes] = []
        odd: list[bytes] = []

        def visit(name: bytes, info: Any) -> bool | None:  # must not raise: the C library calls it
            (names if info.type == h5l.TYPE_HARD else odd).append(name)
            return True if odd or len(names) + len(self._seen) > MAX_OBJECTS else None

        group.links.iterate(visit, info=True)
        if odd:
            raise self._refusal("a soft or external link", f"{where} → {odd[0].decode('utf-8', 'replace')}")
        return names  # `_note` refuses the file if there are too many

    def _note(self, object_id: Any, place: str) -> None:
        info = h5o.get_info(object_id)
        if info.addr in self._seen:
            raise self._refusal("an object with two names (a loop of links)", place)
        self._seen.add(info.addr)
        if len(self._seen) > MAX_OBJECTS:
            raise self._refusal(f"more than {MAX_OBJECTS} objects", place)
        count = h5a.get_num_attrs(object_id)
        if count > MAX_ATTRIBUTES:
            raise self._refusal(f"{count} attributes", place)
        for index in range(count):
            attribute = h5a.open(object_id, index=index)
            self._type(attribute.get_type(), place)
            # Keras writes an attribute `name` at each group of variables; no loader reads it.
            unread = isinstance(object_id, h5g.GroupID) and attribute.name == b"name"
            self.has_texts = self.has_texts or (not unread and _is_text(attribute.get_type()))
            self._declare(attribute.get_space(), attribute.get_type(), place)

    def _dataset(self, dataset: h5d.DatasetID, place: str) -> None:
        plist = dataset.get_create_plist()
        layout = plist.get_layout()
        if layout == h5d.VIRTUAL or plist.get_external_count():
            raise self._refusal("data that lies in other files", place)
        if layout not in (h5d.CONTIGUOUS, h5d.COMPACT):
            raise self._refusal("data in chunks, which Keras does not write", place)
        self._type(dataset.get_type(), place)
        if _is_text(dataset.get_type()):
            raise self._refusal("a dataset of texts", place)
        declared = self._declare(dataset.get_space(), dataset.get_type(), place)
        stored = dataset.get_storage_size()
        if stored > self._size:
            raise self._refusal(f"{stored} stored bytes, more than the whole file", place)
        if declared > stored:
            raise self._refusal(f"a shape of {declared} bytes with only {stored} bytes of data", place)
        offset = dataset.get_offset()
        if layout == h5d.CONTIGUOUS and offset is not None and stored:
            self._runs.append((offset, stored))

    def _declare(self, space: h5s.SpaceID, type_id: h5t.TypeID, place: str) -> int:
        if space.get_simple_extent_type() == h5s.NULL:
            raise self._refusal("a dataset or attribute without a shape", place)
        count = math.prod(space.get_simple_extent_dims())
        declared: int = count * type_id.get_size()
        self._declared += count * _TEXT if _is_text(type_id) else declared
        if self._declared > self._limit:
            raise self._refusal(
                f"arrays that would take more than {self._limit} bytes in memory (the file has {self._size})", place
            )
        return declared

    def _type(self, type_id: h5t.TypeID, place: str) -> None:
        kind = type_id.get_class()
        if kind in _SCALAR_CLASSES:
            _ = type_id.dtype  # raises, as in a loader, for a number that has no NumPy type
            return
        if kind == h5t.OPAQUE and type_id.get_size() <= 2 and not type_id.get_tag():
            return  # bfloat16 and float8, as h5py stores them
        if kind == h5t.COMPOUND and type_id.get_nmembers() == 2 and type_id.dtype in (np.complex64, np.complex128):
            return
        raise self._refusal("a type that is neither number, boolean nor string", place)

    def _overlaps(self) -> None:
        end = 0
        for offset, length in sorted(self._runs):
            if offset < end or offset + length > self._size:
                raise self._refusal("datasets that overlap or lie past the end of the file", f"offset {offset}")
            end = offset + length

    def _refusal(self, what: str, place: str) -> CorruptCheckpointError:
        return CorruptCheckpointError(f"{self._name}: not safe to load: {what}, at {place!r}")


def _is_text(type_id: h5t.TypeID) -> bool:
    """Return whether values of this type are texts of variable length."""
    return type_id.get_class() == h5t.STRING and bool(type_id.is_variable_str())
