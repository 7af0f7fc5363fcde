"""Locks and promises on files of the cache: no process removes a file still needed by another process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

PROMISE = 600.0
"""Seconds for which the cache keeps a file after `get` returned its path: the caller has not opened the file yet."""

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class CachedFile:
    """A shared lock on a file of the cache, held from before the digest is verified until the file is loaded.

    A trimming removes only files on which nobody holds a shared lock and whose promise is over. The modification time
    of a file records when the file was last used. A modification time in the future is a promise: the file stays until
    then. On a filesystem without locks, each use makes a promise of `PROMISE` seconds.

    Attributes:
        path: The file; valid until `close`.
    """

    def __init__(self, at: Path, path: Path | None = None) -> None:
        """Open and lock the file `at`; `path` is the final name of the same file.

        Raises:
            FileNotFoundError: The file does not exist, or another process trimmed it between the open and the lock.
            OSError: The file cannot be opened.
        """
        self.path = path or at
        self._fd: int | None = os.open(at, _FLAGS)
        try:
            # Blocks at most for one unlink: `remove_unneeded` alone takes this lock exclusively.
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            self._locked = True
        except OSError:  # a filesystem without flock: `use` makes a promise instead
            self._locked = False
        # Between our open and our lock another process may have trimmed the file: then the inode has no name any more.
        if not os.fstat(self._fd).st_nlink:
            self.close()
            raise FileNotFoundError(os.fspath(at))

    def use(self, *, promise: float = 0.0) -> None:
        """Record that the file is needed now, or for `promise` seconds. An earlier promise that ends later holds."""
        if self._fd is not None:
            found, now = os.fstat(self._fd), time.time()
            until = now + (promise if self._locked else PROMISE)
            # Another process may have promised a path from `get`: never shorten its promise.
            until = max(until, found.st_mtime) if is_promised(found) else until
            os.utime(self.path, (until, until))

    def remove(self) -> None:
        """Remove and close the file. A newer file under the same name stays."""
        # Another process that found the same damage may already have put a fresh download under this name.
        if self._fd is not None and os.path.samestat(os.fstat(self._fd), self.path.lstat()):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Release the lock, so that the file may be trimmed. Repeating changes nothing."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                # Unlock explicitly: a forked child may hold a copy of the descriptor, which would keep the lock.
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def __enter__(self) -> CachedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_promised(found: os.stat_result) -> bool:
    """Return whether a promise keeps the file.

    A time more than `PROMISE` seconds ahead is no promise: it was written before the clock was set back.
    """
    return 0.0 < found.st_mtime - time.time() <= PROMISE


def remove_unneeded(path: Path) -> bool:
    """Remove a file of the cache unless somebody needs the file; return whether the file is gone."""
    try:
        fd = os.open(path, _FLAGS)
    except FileNotFoundError:  # another process trimmed the file first
        return True
    try:
        if is_promised(os.fstat(fd)):
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a `CachedFile` of some process or thread holds the shared lock
            return False
        except OSError:  # a filesystem without flock: there the promise alone protects the file
            pass
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)
