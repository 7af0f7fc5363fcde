"""The digest of a file that is still growing, so that little is left to do when its last byte has come."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_BLOCK = 1 << 20  # bytes read at once


class FollowingDigest:
    """sha256 of a file's beginning, computed in a thread of its own while the bytes behind it are still coming.

    The bytes are read back from the file, not taken from the buffers that were written. Ranges land out of order, so
    the buffers would have to wait for their turn, in memory; and what is verified is then the very file that will be
    loaded. The kernel still has the pages: reading them costs a tenth of hashing them.
    """

    def __init__(self, path: Path) -> None:
        """Name the file, which need not exist yet. No thread is started."""
        self._path = path
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="remote_ckpt-digest")
        self._whole = hashlib.sha256()
        self._position = 0
        self._asked = 0
        self._fd: int | None = None
        self._closed = False
        self._buffer = bytearray(_BLOCK)

    def follow(self, end: int) -> None:
        """Digest up to `end` soon; those bytes must not change any more. Returns at once."""
        if end > self._asked:
            self._asked = end
            self._pool.submit(self._digest, end)

    def hexdigest(self, size: int) -> str:
        """Wait for the digest of the whole file, which now is complete.

        Raises:
            OSError: It cannot be read.
        """
        self._pool.submit(self._digest, size).result()
        return self._whole.hexdigest()

    def close(self) -> None:
        """End the thread, which stops where it is."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _digest(self, end: int) -> None:
        """Go on from where the last call ended; one that failed left the rest to the next."""
        if self._fd is None:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        view = memoryview(self._buffer)
        while self._position < end and not self._closed:
            count = os.preadv(self._fd, [view[: end - self._position]], self._position)
            if not count:
                return  # shorter than promised: the digest will say so
            self._whole.update(view[:count])
            self._position += count
