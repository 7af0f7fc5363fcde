"""Blocking work in threads beside the event loop: reading parts, checksums, writing ranges."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from remote_ckpt.errors import SpoolError, StoreError
from remote_ckpt.stores.base import MIB
from remote_ckpt.stores.checksums import crc32c
from remote_ckpt.stores.transfer.part_plan import Range

T = TypeVar("T")

_THREADS = 4
_READ = MIB
_MOST_BUFFERS = 512  # of one `pwritev`; POSIX guarantees 16, Linux and macOS 1024


class FileIO:
    """A few threads for the disk: in the loop's default executor a slow disk would hold up the resolving of names."""

    def __init__(self) -> None:
        """Make the pool; threads start on first use."""
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="remote_ckpt-disk")

    async def do(self, work: Callable[[], T]) -> T:
        """Run blocking work in a thread and return the result. If cancelled, wait first until the work is done.

        Raises:
            StoreError: The interpreter is shutting down, and starts no more work.
        """
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        except RuntimeError as exc:  # from the executor, at the interpreter's exit or after `close`
            raise StoreError("Cannot transfer any more: the interpreter is shutting down.") from exc
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # A thread cannot be cancelled. The caller closes its descriptor next, and another file may get the number:
            # the thread would then read or write that file.
            await asyncio.wait({future})
            raise

    def close(self) -> None:
        """End the threads after their present work; return at once."""
        self._pool.shutdown(wait=False)


def read_range(fd: int, start: int, end: int) -> bytes:
    """Return bytes [start, end).

    Raises:
        SpoolError: The file is shorter than it was.
    """
    data = os.pread(fd, end - start, start)
    while len(data) < end - start:  # a signal may interrupt a read, or the file was cut
        more = os.pread(fd, end - start - len(data), start + len(data))
        if not more:
            raise SpoolError(f"A file being uploaded has lost bytes {start + len(data)} to {end}.")
        data += more
    return data


def crc32c_of(fd: int, part: Range) -> int:
    """Return a range's crc32c; read a MiB at a time, whatever the length of the range.

    Raises:
        SpoolError: The file is shorter than it was.
    """
    crc = 0
    for start in range(part.start, part.end, _READ):
        crc = crc32c(read_range(fd, start, min(start + _READ, part.end)), crc)
    return crc


def write_range(fd: int, pieces: Sequence[bytes], start: int) -> None:
    """Write consecutive pieces, beginning at offset `start`, without joining the pieces in memory first.

    Raises:
        OSError: The local disk refused; some bytes may have been written.
    """
    for at in range(0, len(pieces), _MOST_BUFFERS):
        batch = pieces[at : at + _MOST_BUFFERS]
        size = sum(map(len, batch))
        written = os.pwritev(fd, batch, start)
        # A signal or a nearly full disk makes a short write without an error; writing the rest succeeds or raises.
        if written < size:
            _write_all(fd, memoryview(b"".join(batch))[written:], start + written)
        start += size


def _write_all(fd: int, data: memoryview, start: int) -> None:
    while data:
        written = os.pwrite(fd, data, start)
        data, start = data[written:], start + written
