"""Are the heaps of an HDF5 file such that the HDF5 library comes to an end with them?

Texts of any length lie in global heaps, and the library walks through the objects of one without noticing one of no
length: it then never returns (HDF5 1.14; format specification III.E, "Global Heap"). Nothing tells where the heaps are
but the texts themselves, which cannot be asked without that walk. So all heaps in the file are looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import IO

_SIGNATURE = b"GCOL\x01\x00\x00\x00"  # with version and reserved bytes, so that eight bytes of data are none by chance
_HEADER = 16  # bytes, of a heap and of an object in it
_SMALLEST = 4096
_BLOCK = 256 << 10
_MOST = 200_000  # heaps and texts; a model has one or two for each variable


def problem(file: IO[bytes], size: int) -> str | None:
    """Return what is wrong with one of the file's heaps, or None. Reads the whole file, in small blocks.

    Args:
        file: The HDF5 file; its position is changed.
        size: Of the file, in bytes.
    """
    offsets = list(islice(_found(file), _MOST))
    steps = 0
    for offset in offsets:
        walked = _walk(file, offset, size)
        if walked is None:
            return f"a damaged heap at byte {offset}"
        steps += walked
        if len(offsets) + steps > _MOST:
            return f"more than {_MOST} texts"
    return None


def _found(file: IO[bytes]) -> Iterator[int]:
    """Yield where heaps begin."""
    file.seek(0)
    start, kept = 0, b""
    while block := file.read(_BLOCK):
        text = kept + block
        at = text.find(_SIGNATURE)
        while at >= 0:
            yield start + at
            at = text.find(_SIGNATURE, at + 1)
        kept = text[-(len(_SIGNATURE) - 1) :]
        start += len(text) - len(kept)


def _walk(file: IO[bytes], offset: int, size: int) -> int | None:
    """Return how many objects a heap holds; None unless it lies in the file, and they fill it one after the other."""
    length = _number(file, offset + 8)
    if not _SMALLEST <= length <= size - offset:
        return None
    at, count = _HEADER, 0
    while at + _HEADER <= length:
        is_rest = _number(file, offset + at, 2) == 0
        object_size = _number(file, offset + at + 8)
        step = object_size if is_rest else _HEADER + (object_size + 7) // 8 * 8
        if step < _HEADER or step > length - at:
            return None
        at, count = at + step, count + 1
    return count


def _number(file: IO[bytes], offset: int, width: int = 8) -> int:
    file.seek(offset)
    return int.from_bytes(file.read(width), "little")
