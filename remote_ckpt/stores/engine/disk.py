"""Blocking work beside the event loop: reading parts, checksums, writing ranges."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from remote_ckpt.errors import SpoolError, StoreError
from remote_ckpt.stores.base import MIB
from remote_ckpt.stores.checksums import crc32c
from remote_ckpt.stores.engine.plan import Range

T = TypeVar("T")

_THREADS = 4
_READ = MIB
_MOST_BUFFERS = 512  # POSIX promises 16, Linux and macOS 1024


class Disk:
    """A few threads of our own: the loop's default executor also resolves names, and must not wait for a slow disk."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="remote_ckpt-disk")

    async def do(self, work: Callable[[], T]) -> T:
        """Run blocking work in a thread. A cancelled wait lasts until the work is done: it may use a descriptor.

        Raises:
            StoreError: The interpreter is shutting down, and starts no more work.
        """
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        except RuntimeError as exc:
            raise StoreError("Cannot transfer any more: the interpreter is shutting down.") from exc
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})
            raise

    def close(self) -> None:
        """End the threads when their present work is done."""
        self._pool.shutdown(wait=False)


def read_range(fd: int, start: int, end: int) -> bytes:
    """Return bytes [start, end).

    Raises:
        SpoolError: The file is shorter than it was.
    """
    data = os.pread(fd, end - start, start)
    while len(data) < end - start:  # a signal
        more = os.pread(fd, end - start - len(data), start + len(data))
        if not more:
            raise SpoolError(f"A file being uploaded has lost bytes {start + len(data)} to {end}.")
        data += more
    return data


def crc32c_of(fd: int, part: Range) -> int:
    """Return a range's crc32c, read little by little, however long the range is.

    Raises:
        SpoolError: The file is shorter than it was.
    """
    crc = 0
    for start in range(part.start, part.end, _READ):
        crc = crc32c(read_range(fd, start, min(start + _READ, part.end)), crc)
    return crc


def write_range(fd: int, pieces: Sequence[bytes], start: int) -> None:
    """Write pieces one behind the other from an offset on; joining them first would cost as much as receiving them."""
    for at in range(0, len(pieces), _MOST_BUFFERS):
        batch = pieces[at : at + _MOST_BUFFERS]
        size = sum(map(len, batch))
        written = os.pwritev(fd, batch, start)
        if written < size:  # a signal, or a nearly full disk: the rest in one go, or the error
            _write_all(fd, memoryview(b"".join(batch))[written:], start + written)
        start += size


def _write_all(fd: int, data: memoryview, start: int) -> None:
    while data:
        written = os.pwrite(fd, data, start)
        data, start = data[written:], start + written
