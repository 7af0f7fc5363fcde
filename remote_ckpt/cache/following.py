"""The digest of a growing file, computed during the download: little is left to do after the last byte."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_BLOCK = 1 << 20  # bytes read at once


class FollowingDigest:
    """The sha256 of a file, computed from the beginning in a separate thread while later bytes still arrive.

    The thread reads the bytes back from the file, not from the buffers of the download. There are two reasons. Ranges
    land out of order, so the buffers would have to wait in memory for their turn. And the digest is then the digest of
    the very file that will be loaded. The kernel still has the pages in its cache: reading them costs a tenth of
    hashing them.
    """

    def __init__(self, path: Path) -> None:
        """Set the path; the file need not exist yet. No thread is started."""
        self._path = path
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="remote_ckpt-digest")
        self._whole = hashlib.sha256()
        self._position = 0
        self._asked = 0
        self._fd: int | None = None
        self._closed = False
        self._buffer = bytearray(_BLOCK)

    def follow(self, end: int) -> None:
        """Schedule the digest of the bytes before `end`, which must not change any more. Return at once."""
        if end > self._asked:
            self._asked = end
            self._pool.submit(self._digest, end)

    def hexdigest(self, size: int) -> str:
        """Return the digest of the complete file of `size` bytes; wait for the thread to finish.

        Raises:
            OSError: The file cannot be read.
        """
        self._pool.submit(self._digest, size).result()
        return self._whole.hexdigest()

    def close(self) -> None:
        """End the thread after the block in progress, and close the file. The digest is lost."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _digest(self, end: int) -> None:
        """Hash from the end of the last call up to `end`. After an error the next call starts at the same position."""
        if self._fd is None:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        view = memoryview(self._buffer)
        while self._position < end and not self._closed:
            count = os.preadv(self._fd, [view[: end - self._position]], self._position)
            if not count:
                return  # the file is shorter than promised, so its digest will differ
            self._whole.update(view[:count])
            self._position += count
