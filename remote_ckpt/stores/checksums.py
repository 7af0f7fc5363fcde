"""crc32c in the notation of S3 and GCS, and versions for stores without versions of their own."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache

import google_crc32c

from remote_ckpt.stores.base import Version

_CASTAGNOLI = 0x82F63B78  # reflected


def crc32c(data: bytes, start: int = 0) -> int:
    """Return the crc32c of earlier bytes followed by `data`; `start` is the crc32c of the earlier bytes."""
    return int(google_crc32c.extend(start, data))


def encode(crc: int) -> str:
    """Return a crc32c in the notation of S3 and GCS: base64 of the four big-endian bytes."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def combine(first: int, second: int, second_size: int) -> int:
    """Return the crc32c of two byte strings joined, from theirs and the second's size (zlib's `crc32_combine`)."""
    return _apply(_zeros(second_size), first) ^ second


def content_version(data: bytes) -> Version:
    """Return a version made from the bytes alone, for stores without versions of their own: equal for equal bytes."""
    return Version(f"sha256:{hashlib.sha256(data).hexdigest()}")


@lru_cache(maxsize=64)
def _zeros(size: int) -> tuple[int, ...]:
    """Return the matrix over GF(2) for appending `size` zero bytes to a crc32c."""
    square = (_CASTAGNOLI, *(1 << bit for bit in range(31)))  # one zero bit
    for _ in range(3):
        square = _multiply(square, square)  # one zero byte
    result = tuple(1 << bit for bit in range(32))
    while size:
        if size & 1:
            result = _multiply(square, result)
        square = _multiply(square, square)
        size >>= 1
    return result


def _multiply(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_apply(left, column) for column in right)


def _apply(matrix: tuple[int, ...], vector: int) -> int:
    total, column = 0, 0
    while vector:
        if vector & 1:
            total ^= matrix[column]
        vector >>= 1
        column += 1
    return total
