"""A file of the cache while somebody needs it: neither a trimming nor a look at its name takes it away."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

PROMISE = 600.0
"""Seconds for which a path that was handed out stays a file: who got it has not opened it yet."""

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class CachedFile:
    """A shared lock on a file of the cache, from before its digest is verified until it is loaded.

    A trimming removes only files that nobody has a shared lock on, and whose promise is over. A file's modification
    time is when it was last needed; in the future, until when it is promised to stay. On a disk without locks each use
    is a promise.

    Attributes:
        path: The file; valid until `close`.
    """

    def __init__(self, at: Path, path: Path | None = None) -> None:
        """Lock the file `at`, which is or will be named `path`.

        Raises:
            FileNotFoundError: It is not there, or was trimmed at this instant.
            OSError: It cannot be opened.
        """
        self.path = path or at
        self._fd: int | None = os.open(at, _FLAGS)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH)  # waits for no more than a trimming's unlink
            self._locked = True
        except OSError:
            self._locked = False
        if not os.fstat(self._fd).st_nlink:
            self.close()
            raise FileNotFoundError(os.fspath(at))

    def use(self, *, promise: float = 0.0) -> None:
        """Note that the file is needed now, or for `promise` seconds; an earlier promise holds."""
        if self._fd is not None:
            found, now = os.fstat(self._fd), time.time()
            until = now + (promise if self._locked else PROMISE)
            until = max(until, found.st_mtime) if is_promised(found) else until
            os.utime(self.path, (until, until))

    def remove(self) -> None:
        """Remove the file and close it; a newer one that has its name by now stays."""
        if self._fd is not None and os.path.samestat(os.fstat(self._fd), self.path.lstat()):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Let the file be trimmed. Repeating changes nothing."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)  # a forked child may have the descriptor too
            os.close(fd)

    def __enter__(self) -> CachedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_promised(found: os.stat_result) -> bool:
    """Return whether a file was promised to stay; what is further ahead was dated by a clock that has been set back."""
    return 0.0 < found.st_mtime - time.time() <= PROMISE


def remove_unneeded(path: Path) -> bool:
    """Remove a file of the cache unless somebody needs it; return whether it is gone."""
    try:
        fd = os.open(path, _FLAGS)
    except FileNotFoundError:
        return True
    try:
        if is_promised(os.fstat(fd)):
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # no locks here
            pass
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)
