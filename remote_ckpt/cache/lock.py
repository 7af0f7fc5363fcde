"""The lock on an object of the cache: a single process downloads the object, and others wait while bytes arrive."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger("remote_ckpt")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5  # seconds between two tries: a released lock wakes no waiter
_QUIET = 1.0  # seconds: a shorter wait is not logged
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class ObjectLock:
    """An exclusive `flock` on a file with the pid of its holder. The kernel releases the lock when the holder dies.

    The filelock package is not used here: a waiter cannot see who holds the lock, nor whether the holder makes
    progress, and its lock files stay.
    """

    def __init__(self, path: Path) -> None:
        """Set the path of the lock file; nothing is created yet."""
        self._path = path
        self._fd: int | None = None

    def take(self) -> bool:
        """Take the lock if the lock is free; return whether this object now holds the lock. Never wait.

        Raises:
            OSError: This filesystem has no locks, or the file cannot be created.
        """
        while True:
            fd = os.open(self._path, _FLAGS, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                current = self._is_at_path(fd)
            except BaseException as exc:
                os.close(fd)
                if isinstance(exc, BlockingIOError):  # another process, or another thread of this one, holds the lock
                    return False
                raise
            if current:
                break
            os.close(fd)  # removed by its holder between our open and our flock: a lock on it excludes nobody
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
        self._fd = fd
        return True

    def wait(self, url: str, moved: Callable[[], object], patience: float) -> bool:
        """Take the lock, waiting while its holder makes progress; return whether this object now holds the lock.

        Log once who holds the lock and which URL is waited for, and once more if the wait is given up. On a filesystem
        without locks return False.

        Args:
            url: The URL of the holder's download, for the log.
            moved: Returns a value that changes while bytes arrive.
            patience: Seconds without a change after which the wait is given up.
        """
        with contextlib.suppress(OSError):  # a filesystem without flock: the caller downloads by itself
            if self.take():
                return True
            return self._wait(url, moved, patience)
        return False

    def release(self) -> None:
        """Release the lock, if held, and remove the lock file."""
        fd, self._fd = self._fd, None
        if fd is not None:
            # Unlink while the lock is held: later, the name could already be that of the next holder's file. A waiter
            # that has opened this file sees in `_is_at_path` that the name is gone, and opens the next file.
            self._path.unlink(missing_ok=True)
            # Unlock explicitly: a forked child may hold a copy of the descriptor, which would keep the lock.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def _wait(self, url: str, moved: Callable[[], object], patience: float) -> bool:
        begun = since = time.monotonic()
        before, pause, told = moved(), _FIRST_PAUSE, False
        while not self.take():
            now = time.monotonic()
            if (seen := moved()) != before:
                before, since = seen, now
            if now - begun >= _QUIET and not told:
                told = True
                log.warning("%s downloads %s; waiting for it.", self._holder(), url)
            if now - since >= patience:
                log.warning(
                    "%s has brought no byte of %s for %.0f s; beginning a download of our own beside it.",
                    *(self._holder(), url, now - since),
                )
                return False
            time.sleep(pause)  # flock has no timeout, and a blocking flock could not watch the progress
            pause = min(2 * pause, _LONGEST_PAUSE)
        return True

    def _holder(self) -> str:
        try:
            number = int(self._path.read_bytes()[:20])
        except (OSError, ValueError):  # the holder has just released the lock, or has not written its pid yet
            return "Another process"
        return "Another thread" if number == os.getpid() else f"Process {number}"

    def _is_at_path(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self._path.lstat())
        except FileNotFoundError:  # removed by the last holder, and no new one yet
            return False
