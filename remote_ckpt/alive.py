"""Whose a folder in the spool is, and whether that process is alive.

On one machine a lock shows it, also to other containers of the same host name: the kernel drops it when its holder
dies. On a disk that several machines mount, a lock may not reach the others (NFS without its lock service, many FUSE
filesystems), and to be able to take it proves nothing. So an owner also touches its lock every minute or so. Whoever
comes from another host leaves the folder alone until that has not happened for `SILENCE`, by the filesystem's own
clock, and then gives it a new name: of several that come at once one succeeds.
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
"""Seconds: thirty signs of life that did not come. A server of files may be away for minutes, and hold them all up."""

_LOCK, _LEFT = "lock", "left"
NAMES = frozenset({_LOCK, _LEFT})
"""Files in each folder that are no checkpoint's."""


@dataclass(frozen=True)
class Owned:
    """A process's folder, and the lock that says it lives."""

    folder: Path
    lock: FileLock
    _beaten: list[float] = field(default_factory=lambda: [time.monotonic()])

    @classmethod
    def create(cls, parent: Path) -> Owned:
        """Make a folder that is locked before anyone can see it, or another process would take it for a dead one's."""
        name = _name()
        unseen = parent / f".{name}"
        unseen.mkdir(mode=0o700)
        lock = _lock(unseen)
        lock.acquire()
        return cls(unseen.rename(parent / name), lock)

    @classmethod
    def take(cls, folder: Path) -> Owned | None:
        """Take a dead owner's folder; None while the owner lives, or may."""
        local = is_local(folder)
        if not local and may_live(folder):
            return None
        lock = _lock(folder)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            return None
        if local:
            (folder / _LEFT).unlink(missing_ok=True)
            return cls(folder, lock)
        return cls._move(folder, lock)

    @classmethod
    def _move(cls, folder: Path, lock: FileLock) -> Owned | None:
        """Give another host's folder a name of ours; None if somebody else was quicker."""
        try:
            moved = folder.rename(folder.parent / _name())
            (moved / _LEFT).unlink(missing_ok=True)
        except OSError:
            lock.release()
            return None
        return cls(moved, lock)

    def beat(self) -> None:
        """Give a sign of life, if the last one was a while ago. Threads: any."""
        if time.monotonic() - self._beaten[0] >= BEAT / 2:
            self._beaten[0] = time.monotonic()
            with contextlib.suppress(OSError):
                os.utime(self.folder / _LOCK)

    def leave(self, *, empty: bool) -> None:
        """Remove the folder if nothing sealed is in it, else note that its owner is gone; then let go of the lock."""
        if empty:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                (self.folder / _LEFT).touch(mode=0o600)
        self.lock.release()


def host_of(folder: Path) -> str:
    """Return the host that a folder's name tells."""
    return folder.name.removeprefix(".").rpartition("-")[0].rpartition("-")[0]


def is_local(folder: Path) -> bool:
    """Return whether a folder was made by a process of this host, whose lock reaches us."""
    return host_of(folder) == _host()


def may_live(folder: Path) -> bool:
    """Return whether the owner of another host's folder has shown life lately, or it cannot be told.

    A file that is being written is a sign of life too: on a slow disk that takes long.
    """
    try:
        if (folder / _LEFT).exists():
            return False
        lock = folder / _LOCK
        signs = (lock if lock.exists() else folder, *folder.glob("*.partial*"))
        return _now(folder.parent) - max(path.lstat().st_mtime for path in signs) < SILENCE
    except OSError:
        return True


def is_being_made(folder: Path) -> bool:
    """Return whether the process that makes a folder, and has not locked it yet, may still live."""
    process = folder.name.rpartition("-")[0].rpartition("-")[2]
    if host_of(folder) != _host() or not process.isdecimal():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:  # it lives, and is somebody else's
        pass
    return True


def _name() -> str:
    return f"{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


def _host() -> str:
    return socket.gethostname()[:40]


def _lock(folder: Path) -> FileLock:
    return FileLock(folder / _LOCK, mode=0o600, thread_local=False)


def _now(parent: Path) -> float:
    """Return the time by the clock of the filesystem, which may be a server's."""
    with tempfile.NamedTemporaryFile(prefix=".now-", dir=parent) as file:
        return os.fstat(file.fileno()).st_mtime
