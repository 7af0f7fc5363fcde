"""The lock on one object of the cache: which process brings it to this machine, and how long others wait for that."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger("remote_ckpt")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5  # seconds between two tries: a lock that is let go of wakes nobody here
_QUIET = 1.0  # seconds that a wait may take before it is worth a line
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class ObjectLock:
    """An exclusive `flock` on a file that names its holder. The kernel drops the lock when the holder dies.

    Not FileLock: its waiters learn neither who holds the lock nor whether the holder comes on, and its files stay.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is created yet."""
        self._path = path
        self._fd: int | None = None

    def take(self) -> bool:
        """Take the lock if it is free; return whether it is ours.

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
                if isinstance(exc, BlockingIOError):
                    return False
                raise
            if current:
                break
            os.close(fd)  # its holder removed it between our open and our flock; others lock the next file
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
        self._fd = fd
        return True

    def wait(self, url: str, moved: Callable[[], object], patience: float) -> bool:
        """Take the lock, waiting as long as its holder comes on; return whether it is ours.

        Logs once for whom and for what, and once more if the wait is given up. On a disk without locks: not ours.

        Args:
            url: What the holder downloads, for the log.
            moved: Gives something that changes while bytes come.
            patience: Seconds without a change after which the wait is given up.
        """
        with contextlib.suppress(OSError):
            if self.take():
                return True
            return self._wait(url, moved, patience)
        return False

    def release(self) -> None:
        """Let go of the lock, and remove its file; who has opened the file notices that, and opens the next."""
        fd, self._fd = self._fd, None
        if fd is not None:
            self._path.unlink(missing_ok=True)
            fcntl.flock(fd, fcntl.LOCK_UN)  # a forked child may have the descriptor too
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
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return True

    def _holder(self) -> str:
        try:
            number = int(self._path.read_bytes()[:20])
        except (OSError, ValueError):  # it has just let go
            return "Another process"
        return "Another thread" if number == os.getpid() else f"Process {number}"

    def _is_at_path(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self._path.lstat())
        except FileNotFoundError:
            return False
