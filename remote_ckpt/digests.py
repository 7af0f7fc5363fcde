"""Checksums of local files, all in one pass over the bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import xxhash

from remote_ckpt.stores import checksums
from remote_ckpt.stores.base import BLOCK, Digests


def digest_file(path: Path, *, blocks: bool = False) -> Digests:
    """Return the size and checksums of a local file, reading it once, `BLOCK` bytes at a time.

    Args:
        path: The file; it must not change meanwhile.
        blocks: Whether to digest each block by itself as well. By XXH3, at 24 GB/s (measured), as these digests only
            find what may be copied: the finished object's crc32c is compared whatever was copied.

    Raises:
        OSError: The file cannot be read.
    """
    whole, crc, size = hashlib.sha256(), 0, 0
    each: list[str] = []
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(BLOCK):
            whole.update(chunk)
            crc = checksums.crc32c(chunk, crc)
            size += len(chunk)
            if blocks:
                each.append(xxhash.xxh3_64_hexdigest(chunk))
    return Digests(size, whole.hexdigest(), checksums.encode(crc), tuple(each))
