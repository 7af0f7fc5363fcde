"""Downloaded objects on the local disk, named by their digest: one download for a machine, many readers."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
import uuid
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import platformdirs

from remote_ckpt.cache.cached_file import PROMISE, CachedFile, remove_unneeded
from remote_ckpt.cache.lock import ObjectLock
from remote_ckpt.cache.partial import Partial, notes_of
from remote_ckpt.checkpoint import Checkpoint
from remote_ckpt.digests import digest_file
from remote_ckpt.errors import CorruptCheckpointError, ObjectNotFoundError, PreconditionFailedError, SpoolError
from remote_ckpt.location import SUFFIXES
from remote_ckpt.private import make_folder
from remote_ckpt.progress import Meter
from remote_ckpt.stores.base import ObjectStore, Progress, Transfer

log = logging.getLogger("remote_ckpt")

LIMIT = 20 << 30
"""Bytes the cache may hold beside what is in use or promised; what was used least recently goes first."""

STALE = timedelta(days=3)
"""A partial file that nothing was added to for so long is removed."""

_OBJECT = re.compile(r"^[0-9a-f]{64}(\.weights\.h5|\.keras|\.h5)$")
_LEFT = re.compile(
    r"^(?:(?P<digest>[0-9a-f]{64})\.(?:lock|[a-z0-9.]+\.partial(\.notes)?)|verify-[0-9a-f]{32}\.partial(\.notes)?)$"
)
_VAIN = (CorruptCheckpointError, ObjectNotFoundError, PreconditionFailedError, SpoolError)
"""After these a partial file is of no use: its object is gone or another one, or its room is needed."""


class Cache:
    """A folder of verified objects; safe for many processes and threads."""

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, limit: int = LIMIT, patience: float = Transfer().deadline
    ):
        """Name the folder (by default in the user's cache); nothing is created yet.

        Args:
            folder: Where the objects are.
            limit: Bytes, see `LIMIT`.
            patience: Seconds without a byte after which another process's download is no longer waited for.
        """
        default = Path(platformdirs.user_cache_dir("remote_ckpt")) / "objects"
        self.folder = Path(folder).expanduser().absolute() if folder else default
        self.limit = limit
        self.patience = patience

    def get(self, checkpoint: Checkpoint, store: ObjectStore, progress: Progress | None = None) -> Path:
        """Return a local file as `open` does, and promise that no trimming removes it for `PROMISE` seconds."""
        with self.open(checkpoint, store, progress) as held:
            held.use(promise=PROMISE)
            return held.path

    def open(self, checkpoint: Checkpoint, store: ObjectStore, progress: Progress | None = None) -> CachedFile:
        """Return a local file with the checkpoint's bytes, downloaded unless it is there, its digest verified now.

        Until the file is closed no process trims it away. While one process downloads, others that want the same object
        wait for it as long as bytes come, and then download beside it. After an error nothing is visible under the
        object's name; what has landed is kept, also when the process dies, and the next call fetches the rest.

        Raises:
            CorruptCheckpointError: What the store holds differs from the recorded digest.
            ObjectNotFoundError: The object is gone.
            StoreError: The store refused, or did not answer in time.
        """
        suffix = next(suffix for suffix in SUFFIXES if checkpoint.key.endswith(suffix))
        path = self.folder / f"{checkpoint.sha256}{suffix}"
        make_folder(self.folder)
        held = _intact(path, checkpoint) or self._bring(path, checkpoint, store, progress)
        try:
            held.use()
            self._trim()
        except BaseException:
            held.close()
            raise
        return held

    def _bring(self, path: Path, checkpoint: Checkpoint, store: ObjectStore, progress: Progress | None) -> CachedFile:
        """Download an object that is not here; or wait for who does so already."""
        shared, lock = _partial_of(path), self._lock(checkpoint.sha256)
        try:
            alone = lock.wait(checkpoint.url, lambda: (_seen(shared), _seen(notes_of(shared))), self.patience)
            if alone and (brought := _intact(path, checkpoint)):
                return brought
            meter = Meter(f"Downloading {checkpoint.url}", checkpoint.size, progress)
            mine = shared if alone else path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
            with closing(Partial(mine, checkpoint.size, meter.resume)) as partial:
                self._fetch(partial, checkpoint, store, meter)
                held = CachedFile(mine, path)  # before others see it, and may trim it
                partial.keep_as(path)
            return held
        finally:
            lock.release()

    def verify(self, checkpoint: Checkpoint, store: ObjectStore, progress: Progress | None = None) -> None:
        """Download the checkpoint whatever the cache holds, compare its digest, and keep nothing.

        Raises:
            CorruptCheckpointError: What the store holds differs from the recorded digest.
            ObjectNotFoundError: The object is gone.
        """
        make_folder(self.folder)
        path = self.folder / f"verify-{uuid.uuid4().hex}.partial"
        meter = Meter(f"Verifying {checkpoint.url}", checkpoint.size, progress)
        with closing(Partial(path, checkpoint.size)) as partial:
            try:
                self._fetch(partial, checkpoint, store, meter)
            finally:
                partial.discard()

    def _fetch(self, partial: Partial, checkpoint: Checkpoint, store: ObjectStore, progress: Progress) -> None:
        """Complete a partial file and verify it; once more from the beginning if a part of it came from before."""
        try:
            found = _download(partial, checkpoint, store, progress)
            if found != checkpoint.sha256 and partial.resumed:
                log.warning("%s, begun by an earlier download, differs from its digest; beginning anew.", partial.path)
                partial.discard()
                found = _download(partial, checkpoint, store, progress)
            if found != checkpoint.sha256:
                raise CorruptCheckpointError(
                    f"{checkpoint.url} is not what was saved: its sha256 is {found}, and the manifest recorded "
                    f"{checkpoint.sha256}. It was not loaded."
                )
        except _VAIN:
            with contextlib.suppress(OSError):
                partial.discard()
            raise

    def _trim(self) -> None:
        """Remove what was used least recently until the cache is within its limit, and downloads given up long ago."""
        found: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                if _OBJECT.match(path.name):
                    found.append((path.stat().st_mtime, path.stat().st_size, path))
                elif (match := _LEFT.match(path.name)) and time.time() - path.lstat().st_mtime > STALE.total_seconds():
                    self._remove_stale(path, match["digest"])
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                return
            with contextlib.suppress(OSError):
                total -= size if remove_unneeded(path) else 0

    def _remove_stale(self, path: Path, digest: str | None) -> None:
        """Remove a partial file, unless somebody has just begun to complete it."""
        lock = self._lock(digest) if digest else None
        if lock is None or lock.take():
            path.unlink(missing_ok=True)
        if lock is not None:
            lock.release()

    def _lock(self, digest: str) -> ObjectLock:
        return ObjectLock(self.folder / f"{digest}.lock")


def _intact(path: Path, checkpoint: Checkpoint) -> CachedFile | None:
    """Return the verified copy that is there; what differs from its name is removed, and so is a link."""
    if path.is_symlink() or not path.is_file():
        path.unlink(missing_ok=True)
        return None
    with contextlib.suppress(FileNotFoundError):  # trimmed at this instant, or damaged and removed by somebody else
        held = CachedFile(path)
        try:
            if path.stat().st_size == checkpoint.size and digest_file(path).sha256 == checkpoint.sha256:
                return held
            log.warning("%s differs from its digest; downloading it again.", path)
            held.remove()
        except BaseException:
            held.close()
            raise
    return None


def _seen(path: Path) -> tuple[int, int] | None:
    """Return something that changes while a file grows."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _partial_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _download(partial: Partial, checkpoint: Checkpoint, store: ObjectStore, progress: Progress) -> str:
    """Bring the object's bytes to the partial file, and return their sha256."""
    try:
        store.fetch(checkpoint.key, partial.path, size=checkpoint.size, progress=progress, landing=partial)
    except PreconditionFailedError as exc:
        raise CorruptCheckpointError(f"{checkpoint.url} is not what was saved, and was not loaded. {exc}") from exc
    return partial.sha256()
