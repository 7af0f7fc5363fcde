"""Downloaded objects on the local disk, named by their digest: one download for each machine, many readers."""

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
from remote_ckpt.digests import digest_file
from remote_ckpt.errors import CorruptCheckpointError, ObjectNotFoundError, PreconditionFailedError, SpoolError
from remote_ckpt.local_files import make_folder
from remote_ckpt.location import SUFFIXES
from remote_ckpt.progress import Meter
from remote_ckpt.records import Checkpoint
from remote_ckpt.stores.base import ObjectStore, Progress, Transfer

log = logging.getLogger("remote_ckpt")

LIMIT = 20 << 30
"""Bytes that the cache may hold. The file used least recently is removed first. A file in use or promised counts, but
is never removed, so such files alone may exceed the limit."""

STALE = timedelta(days=3)
"""A partial file is removed when nothing was added to the file for this time."""

_OBJECT = re.compile(r"^[0-9a-f]{64}(\.weights\.h5|\.keras|\.h5)$")
_LEFT = re.compile(
    r"^(?:(?P<digest>[0-9a-f]{64})\.(?:lock|[a-z0-9.]+\.partial(\.notes)?)|verify-[0-9a-f]{32}\.partial(\.notes)?)$"
)
_VAIN = (CorruptCheckpointError, ObjectNotFoundError, PreconditionFailedError, SpoolError)
"""After one of these errors a partial file is useless: its object is gone or was replaced, or the disk space is
needed."""


class Cache:
    """A folder of verified objects; safe for many processes and threads."""

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, limit: int = LIMIT, patience: float = Transfer().deadline
    ):
        """Set the folder (by default in the user's cache); nothing is created yet.

        Args:
            folder: Where the objects are.
            limit: Bytes, see `LIMIT`.
            patience: Seconds without a byte after which this process no longer waits for another process's download.
        """
        default = Path(platformdirs.user_cache_dir("remote_ckpt")) / "objects"
        self.folder = Path(folder).expanduser().absolute() if folder else default
        self.limit = limit
        self.patience = patience

    def get(self, checkpoint: Checkpoint, store: ObjectStore, progress: Progress | None = None) -> Path:
        """Return the path of a local file as `open` does; no trimming removes the file for `PROMISE` seconds."""
        with self.open(checkpoint, store, progress) as held:
            held.use(promise=PROMISE)
            return held.path

    def open(self, checkpoint: Checkpoint, store: ObjectStore, progress: Progress | None = None) -> CachedFile:
        """Return a local file with the checkpoint's bytes: downloaded if the cache lacks them, verified in any case.

        Until the file is closed, no process trims the file. While one process downloads an object, others that want
        the same object wait as long as bytes arrive; after that they download a copy of their own. After an error no
        incomplete file has the object's name. After a network error, or when the process dies, the bytes that have
        landed are kept, and the next call fetches only the rest; a download beside that of another process is not
        resumed. After a CorruptCheckpointError, an ObjectNotFoundError or a SpoolError nothing is kept.

        Raises:
            CorruptCheckpointError: The object's bytes differ from the recorded digest.
            ObjectNotFoundError: The object is gone.
            SpoolError: The local file cannot be written (S3 and GCS; the other stores raise a StoreError).
            StoreError: The store refused, or did not answer in time.
        """
        suffix = next(suffix for suffix in SUFFIXES if checkpoint.key.endswith(suffix))
        path = self.folder / f"{checkpoint.sha256}{suffix}"
        make_folder(self.folder)
        held = _intact(path, checkpoint) or self._bring(path, checkpoint, store, progress)
        try:
            held.use()  # before `_trim`, so that this file is the one used last
            self._trim()
        except BaseException:
            held.close()
            raise
        return held

    def _bring(self, path: Path, checkpoint: Checkpoint, store: ObjectStore, progress: Progress | None) -> CachedFile:
        """Download an object into the cache, or wait for the process (or thread) already downloading the object."""
        shared, lock = _partial_of(path), self._lock(checkpoint.sha256)
        try:
            alone = lock.wait(checkpoint.url, lambda: (_seen(shared), _seen(notes_of(shared))), self.patience)
            # The holder that we waited for may have completed the download.
            if alone and (brought := _intact(path, checkpoint)):
                return brought
            meter = Meter(f"Downloading {checkpoint.url}", checkpoint.size, progress)
            # Without the lock another process may be writing to the shared file, only slowly: use a name of our own.
            mine = shared if alone else path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
            with closing(Partial(mine, checkpoint.size, meter.resume)) as partial:
                self._fetch(partial, checkpoint, store, meter)
                held = CachedFile(mine, path)  # lock before the rename: afterwards any process may trim the file
                partial.keep_as(path)
            return held
        finally:
            lock.release()

    def verify(self, checkpoint: Checkpoint, store: ObjectStore, progress: Progress | None = None) -> None:
        """Download the checkpoint without using the cache, compare the digest, and keep nothing.

        Raises:
            CorruptCheckpointError: The object's bytes differ from the recorded digest.
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
        """Complete and verify a partial file.

        If the digest differs and a part of the file came from an earlier download, download the whole object once more:
        after a power cut, the notes may list bytes that never reached the disk.
        """
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
        except _VAIN:  # after any other error the partial file stays, for the next call to complete
            with contextlib.suppress(OSError):
                partial.discard()
            raise

    def _trim(self) -> None:
        """Remove the files used least recently until the cache is within the limit, and stale partial downloads."""
        found: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):  # other processes trim the same folder: a listed file may be gone
                if _OBJECT.match(path.name):
                    found.append((path.stat().st_mtime, path.stat().st_size, path))
                elif (match := _LEFT.match(path.name)) and time.time() - path.lstat().st_mtime > STALE.total_seconds():
                    self._remove_stale(path, match["digest"])
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                return
            with contextlib.suppress(OSError):  # as above, or a file that this user may not remove: try the next
                total -= size if remove_unneeded(path) else 0

    def _remove_stale(self, path: Path, digest: str | None) -> None:
        """Remove a partial file, unless another process (or thread) has just begun to complete the file."""
        # A file of `verify` has a random name and no lock: only one process ever wrote to it, and not since `STALE`.
        lock = self._lock(digest) if digest else None
        if lock is None or lock.take():
            path.unlink(missing_ok=True)
        if lock is not None:
            lock.release()

    def _lock(self, digest: str) -> ObjectLock:
        return ObjectLock(self.folder / f"{digest}.lock")


def _intact(path: Path, checkpoint: Checkpoint) -> CachedFile | None:
    """Return the local copy, locked and verified, or None. Remove a copy with another digest, and a link."""
    if path.is_symlink() or not path.is_file():
        path.unlink(missing_ok=True)
        return None
    with contextlib.suppress(FileNotFoundError):  # another process has just trimmed the file, or found the damage first
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
    """Return a value that changes while a file grows: size and modification time; None without a file."""
    try:
        found = path.lstat()
    except OSError:  # not created yet, or renamed by the holder just now
        return None
    return found.st_size, found.st_mtime_ns


def _partial_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _download(partial: Partial, checkpoint: Checkpoint, store: ObjectStore, progress: Progress) -> str:
    """Fetch the object's missing bytes into the partial file, and return the sha256 of the whole file."""
    try:
        store.fetch(checkpoint.key, partial.path, size=checkpoint.size, progress=progress, landing=partial)
    except PreconditionFailedError as exc:  # the object was overwritten: its size differs, or it changed meanwhile
        raise CorruptCheckpointError(f"{checkpoint.url} is not what was saved, and was not loaded. {exc}") from exc
    return partial.sha256()
