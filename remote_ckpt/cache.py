"""Downloaded objects on the local disk, named by their digest: one download for a machine, many readers."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import uuid
from pathlib import Path

import platformdirs
from filelock import FileLock

from remote_ckpt.checkpoint import Checkpoint
from remote_ckpt.digests import digest_file
from remote_ckpt.errors import CorruptCheckpointError
from remote_ckpt.location import SUFFIXES
from remote_ckpt.stores.base import ObjectStore, Progress

log = logging.getLogger("remote_ckpt")

LIMIT = 20 << 30
"""Bytes the cache may hold; what was used least recently goes first."""

_OBJECT = re.compile(r"^[0-9a-f]{64}(\.weights\.h5|\.keras|\.h5)$")


class Cache:
    """A folder of verified objects; safe for many processes and threads."""

    def __init__(self, folder: str | os.PathLike[str] | None = None, limit: int = LIMIT):
        """Name the folder (by default in the user's cache); nothing is created yet."""
        default = Path(platformdirs.user_cache_dir("remote_ckpt")) / "objects"
        self.folder = Path(folder).expanduser().absolute() if folder else default
        self.limit = limit

    def get(self, checkpoint: Checkpoint, store: ObjectStore, progress: Progress | None = None) -> Path:
        """Return a local file with the checkpoint's bytes, downloaded unless it is there, its digest verified now.

        While one process downloads, others that want the same object wait for it. After an error nothing is visible
        under the object's name.

        Raises:
            CorruptCheckpointError: What the store holds differs from the recorded digest.
            ObjectNotFoundError: The object is gone.
            StoreError: The store refused, or did not answer in time.
        """
        suffix = next(suffix for suffix in SUFFIXES if checkpoint.key.endswith(suffix))
        path = self.folder / f"{checkpoint.sha256}{suffix}"
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(self.folder / f"{checkpoint.sha256}.lock", mode=0o600):
            if not self._holds(path, checkpoint):
                self._fetch(path, checkpoint, store, progress)
            os.utime(path)
        self._trim(keep=path)
        return path

    def verify(self, checkpoint: Checkpoint, store: ObjectStore, progress: Progress | None = None) -> None:
        """Download the checkpoint whatever the cache holds, compare its digest, and keep nothing.

        Raises:
            CorruptCheckpointError: What the store holds differs from the recorded digest.
            ObjectNotFoundError: The object is gone.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / f"verify-{uuid.uuid4().hex}"
        try:
            self._fetch(path, checkpoint, store, progress)
        finally:
            path.unlink(missing_ok=True)

    def _holds(self, path: Path, checkpoint: Checkpoint) -> bool:
        """Return whether a verified copy is there; what differs from its name is removed, and so is a link."""
        if path.is_symlink() or not path.is_file():
            path.unlink(missing_ok=True)
            return False
        if path.stat().st_size == checkpoint.size and digest_file(path).sha256 == checkpoint.sha256:
            return True
        log.warning("%s differs from its digest; downloading it again.", path)
        path.unlink()
        return False

    def _fetch(self, path: Path, checkpoint: Checkpoint, store: ObjectStore, progress: Progress | None) -> None:
        partial = path.with_name(f"{path.name}.partial")
        try:
            partial.unlink(missing_ok=True)
            store.fetch(checkpoint.key, partial, size=checkpoint.size, progress=progress)
            found = digest_file(partial)
            if found.sha256 != checkpoint.sha256:
                raise CorruptCheckpointError(
                    f"{checkpoint.url} is not what was saved: its sha256 is {found.sha256}, and the manifest recorded "
                    f"{checkpoint.sha256}. It was not loaded."
                )
            partial.chmod(0o600)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _trim(self, keep: Path) -> None:
        """Remove what was used least recently until the cache is within its limit."""
        found: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                if _OBJECT.match(path.name):
                    found.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size
