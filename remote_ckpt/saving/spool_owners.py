"""Find out the owner of a folder in the spool, and whether the owner is alive.

On one machine a lock shows this, also to other containers with the same host name: the kernel releases the lock when
the owner dies. On a disk that several machines mount, a lock may not reach the other machines (NFS without its lock
service, many FUSE filesystems): there, being able to take the lock proves nothing. So an owner also touches its lock
file every minute or so. A process on another host leaves the folder alone until the owner has shown no sign of life for
`SILENCE` seconds, by the filesystem's own clock. Then it renames the folder: of several processes that try, one
succeeds.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

BEAT = 60.0
"""Seconds between two signs of life."""

SILENCE = 1800.0
"""Seconds without a sign of life, thirty times `BEAT`: a file server may not answer for minutes."""

_LOCK, _LEFT = "lock", "left"
NAMES = frozenset({_LOCK, _LEFT})
"""Files in each folder that belong to no checkpoint."""


@dataclass(frozen=True)
class Owned:
    """A process's folder, and the lock held while the process lives."""

    folder: Path
    lock: FileLock
    _beaten: list[float] = field(default_factory=lambda: [time.monotonic()])

    @classmethod
    def create(cls, parent: Path) -> Owned:
        """Create a folder under a hidden name, lock the folder, then give the folder a visible name."""
        name = _name()
        # Locked under a hidden name: a visible folder without a lock would be taken for a dead process's.
        unseen = parent / f".{name}"
        unseen.mkdir(mode=0o700)
        lock = _lock(unseen)
        lock.acquire()
        return cls(unseen.rename(parent / name), lock)

    @classmethod
    def take(cls, folder: Path) -> Owned | None:
        """Take over a dead owner's folder; return None if the owner lives or may live."""
        local = is_local(folder)
        if not local and may_live(folder):
            return None
        lock = _lock(folder)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):  # the owner lives, or has just removed the folder, or the disk has no locks
            return None
        if local:  # the lock decides alone: of two processes of this host one gets it
            (folder / _LEFT).unlink(missing_ok=True)
            return cls(folder, lock)
        return cls._move(folder, lock)

    @classmethod
    def _move(cls, folder: Path, lock: FileLock) -> Owned | None:
        """Rename another host's folder to a name of this process; return None if another process was quicker."""
        try:  # two hosts may hold the lock at once; the rename is atomic, so it succeeds for one of them
            moved = folder.rename(folder.parent / _name())
            (moved / _LEFT).unlink(missing_ok=True)
        except OSError:
            lock.release()
            return None
        return cls(moved, lock)

    def beat(self) -> None:
        """Touch the lock file, if the last touch was `BEAT / 2` seconds ago or more. Threads: any."""
        if time.monotonic() - self._beaten[0] >= BEAT / 2:
            self._beaten[0] = time.monotonic()
            with contextlib.suppress(OSError):  # a disk that does not answer: `SILENCE` allows for missed signs
                os.utime(self.folder / _LOCK)

    def leave(self, *, empty: bool) -> None:
        """Remove the folder, or mark the folder as left by the owner; then release the lock.

        Args:
            empty: Whether to remove the folder, with all that is in it.
        """
        if empty:  # removed before the lock is released: afterwards another process may own the folder
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # without the mark, other hosts wait for `SILENCE`
                (self.folder / _LEFT).touch(mode=0o600)
        self.lock.release()


def host_of(folder: Path) -> str:
    """Return the host in a folder's name."""
    return folder.name.removeprefix(".").rpartition("-")[0].rpartition("-")[0]


def is_local(folder: Path) -> bool:
    """Return whether a process of this host made a folder: then the lock can be trusted."""
    return host_of(folder) == _host()


def may_live(folder: Path) -> bool:
    """Return whether the owner of another host's folder may live; True in case of doubt.

    False if the owner has left, or has shown no sign of life for `SILENCE` seconds. A file being written is a sign of
    life too: on a slow disk, writing takes long.
    """
    try:
        if (folder / _LEFT).exists():
            return False
        lock = folder / _LOCK
        signs = (lock if lock.exists() else folder, *folder.glob("*.partial*"))
        return _now(folder.parent) - max(path.lstat().st_mtime for path in signs) < SILENCE
    except OSError:  # the folder has vanished, or the disk does not answer: leave it alone
        return True


def is_being_made(folder: Path) -> bool:
    """Return whether the creator of a hidden folder, not yet given a visible name, may live."""
    process = folder.name.rpartition("-")[0].rpartition("-")[2]
    if host_of(folder) != _host() or not process.isdecimal():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:  # EPERM: the process lives, and belongs to another user
        pass
    return True


def _name() -> str:
    return f"{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


def _host() -> str:
    return socket.gethostname()[:40]


def _lock(folder: Path) -> FileLock:
    # Not thread-local: one thread acquires the lock, another may release it.
    return FileLock(folder / _LOCK, mode=0o600, thread_local=False)


def _now(parent: Path) -> float:
    """Return the time in seconds by the filesystem's clock, on a network disk the server's clock."""
    with tempfile.NamedTemporaryFile(prefix=".now-", dir=parent) as file:
        return os.fstat(file.fileno()).st_mtime
