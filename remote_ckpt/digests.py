"""Checksums of local files, all in one pass over the bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import xxhash

from remote_ckpt.stores import checksums
from remote_ckpt.stores.base import BLOCK, Digests

_CHUNK = 1 << 20
"""Bytes that are read at once: they stay in the processor's cache for all checksums (300 MB: 199 ms; at 8 MiB, 225)."""


def digest_file(path: Path, *, blocks: bool = False) -> Digests:
    """Return the size and checksums of a local file, reading it once.

    Args:
        path: The file, which must not change meanwhile.
        blocks: Whether to digest each block of `BLOCK` bytes as well. XXH3 (64 bits, 24 GB/s measured) is enough,
            because these digests only find blocks to copy: the crc32c of the finished object is always compared.

    Raises:
        OSError: The file cannot be read.
    """
    whole, crc, size = hashlib.sha256(), 0, 0
    each: list[str] = []
    block = xxhash.xxh3_64()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(min(_CHUNK, BLOCK - size % BLOCK)):
            whole.update(chunk)
            crc = checksums.crc32c(chunk, crc)
            size += len(chunk)
            if blocks:
                block.update(chunk)
                if size % BLOCK == 0:
                    each.append(block.hexdigest())
                    block.reset()
    if blocks and size % BLOCK:
        each.append(block.hexdigest())
    return Digests(size, whole.hexdigest(), checksums.encode(crc), tuple(each))
