"""Checks of the variable-length texts in an HDF5 file, without the HDF5 library.

HDF5 stores texts of variable length in global heaps; a reference holds the place and the length of each. The HDF5
library (1.14) has two faults here. It allocates the length in the reference, up to 4 GiB, before it reads the heap. And
its walk through a heap's objects never returns if an object has length 0. The library has no function that examines a
heap without this walk. So the file's bytes are searched for all heaps, and for all datatypes of such texts. The
references follow the datatype, in the one form that h5py writes (format specification, "Global Heap", "Datatype" and
"Attribute" messages, all of version 1); any other form is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import IO

_HEAP = re.compile(rb"GCOL\x01\0\0\0")  # eight bytes: random data matches once in 2**64 places
_TEXT = re.compile(rb"[\x19\x29\x39\x49\x59]..\0\x10\0\0\0", re.DOTALL)  # a type of class 9, whose values take 16 bytes
_PATTERN = 8  # bytes of either pattern
_BASE = b"\x10\0\0\0\x01\0\0\0\0\0\x08\0\0\0\0\0"  # the base type of a text: integers of one byte
_HEADER = 16  # bytes, of a heap and of an object in it
_SMALLEST = 4096  # bytes, of a heap
_BLOCK = 256 << 10  # bytes read at a time
_MOST = 200_000  # heaps and texts; a model has one or two for each variable


def problem(file: IO[bytes], size: int) -> str | None:
    """Return a description of the first unsafe text or heap, or None. Reads the whole file, in small blocks.

    Args:
        file: The HDF5 file; its position is changed.
        size: Of the file, in bytes.
    """
    steps = 0
    for pattern, walk in ((_HEAP, _walk_heap), (_TEXT, _walk_references)):
        # All offsets first: `walk` moves the file's position, from which `_found` reads on.
        for offset in list(islice(_found(file, pattern), _MOST)):
            walked = walk(file, offset, size)
            if walked is None:
                return f"a text or a heap of texts that is not as h5py writes it, at byte {offset}"
            steps += 1 + walked
            if steps >= _MOST:
                return f"more than {_MOST} texts"
    return None


def _found(file: IO[bytes], pattern: re.Pattern[bytes]) -> Iterator[int]:
    """Yield the offset of each match of a pattern."""
    file.seek(0)
    start, kept = 0, b""
    while block := file.read(_BLOCK):
        text = kept + block
        for match in pattern.finditer(text):
            yield start + match.start()
        kept = text[-(_PATTERN - 1) :]  # a match may begin in one block and end in the next
        start += len(text) - len(kept)


def _walk_heap(file: IO[bytes], offset: int, size: int) -> int | None:
    """Return the number of objects in a heap; None if the heap exceeds the file, or the objects do not fill it."""
    length = _number(file, offset + 8)
    if not _SMALLEST <= length <= size - offset:
        return None
    at, count = _HEADER, 0
    while at + _HEADER <= length:
        is_rest = _number(file, offset + at, 2) == 0  # index 0 is the free space, whose size includes its header
        object_size = _number(file, offset + at + 8)
        step = object_size if is_rest else _HEADER + (object_size + 7) // 8 * 8
        if step < _HEADER or step > length - at:
            return None  # no progress (the library would never return), or past the end
        at, count = at + step, count + 1
    return count


def _walk_references(file: IO[bytes], offset: int, size: int) -> int | None:
    """Return the number of texts in an attribute; None for an unusual form, or a text longer than the file."""
    file.seek(offset)
    head = file.read(_PATTERN + len(_BASE) + 8)
    rank, has_limits = head[-7], head[-6]
    if head[0] != 0x19 or head[_PATTERN:-8] != _BASE or head[-8] != 1 or rank > 1 or has_limits > 1:
        return None
    count = _number(file, offset + len(head)) if rank else 1
    first = offset + len(head) + 8 * rank * (1 + has_limits)
    if count > min(_MOST, (size - first) // 16):
        return None
    if any(_number(file, first + 16 * index, 4) > size for index in range(count)):
        return None
    return count


def _number(file: IO[bytes], offset: int, width: int = 8) -> int:
    file.seek(offset)
    return int.from_bytes(file.read(width), "little")
