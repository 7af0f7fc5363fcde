"""The local file of an upload: opened, read, and compared with the digests taken when the file was sealed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from remote_ckpt.errors import CorruptCheckpointError, SpoolError
from remote_ckpt.stores.base import MIB, Digests
from remote_ckpt.stores.checksums import encode

_READ_SIZE = 4 * MIB


@contextmanager
def open_source(source: Path) -> Iterator[int]:
    """Open the file of an upload and yield the descriptor; closed when the block ends.

    Raises:
        SpoolError: The file cannot be opened. Not a `StoreError`: retrying with the store does not help.
    """
    try:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:  # not the store's failure: an `OSError` would be translated into an error to retry
        raise SpoolError(f"Cannot read {source} for uploading: {exc.strerror}.") from exc
    try:
        yield fd
    finally:
        os.close(fd)


def read_chunks(fd: int) -> Iterator[bytes]:
    """Yield the bytes from the descriptor's position to the end, in chunks of at most 4 MiB."""
    while chunk := os.read(fd, _READ_SIZE):
        yield chunk


def require_match(source: Path, digests: Digests, size: int, crc: int) -> None:
    """Check the size and crc32c just read from `source` against `digests`.

    Raises:
        CorruptCheckpointError: They differ: the local file has changed since sealing, and must not become an object.
    """
    if size != digests.size or encode(crc) != digests.crc32c:
        raise CorruptCheckpointError(
            f"{source} is no longer what was sealed: {size} bytes with crc32c {encode(crc)} instead of "
            f"{digests.size} bytes with {digests.crc32c}. It was not uploaded; the local disk may be failing."
        )
