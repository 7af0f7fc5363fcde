"""Runs in a local (or mounted) folder."""

from __future__ import annotations

import errno
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from remote_ckpt.errors import (
    AccessDeniedError,
    InvalidRequestError,
    ObjectNotFoundError,
    PreconditionFailedError,
    TransientError,
)
from remote_ckpt.location import HIDDEN
from remote_ckpt.stores._os_errors import translated
from remote_ckpt.stores.base import (
    MIB,
    Capabilities,
    DeltaBase,
    Digests,
    Expect,
    Journal,
    Landing,
    ObjectInfo,
    ObjectStore,
    Progress,
    TransferReport,
    Version,
)
from remote_ckpt.stores.checksums import content_version, crc32c, encode
from remote_ckpt.stores.sources import open_source, read_chunks, require_match

_TEMPORARY = f"{HIDDEN}/tmp"
_LOCK = f"{HIDDEN}/lock"
_HASHED = MIB  # bytes; for larger files `stat` makes the version from the inode and its times, and reads no bytes
_NO_HARD_LINKS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class LocalStore(ObjectStore):
    """A folder as an object store.

    Small objects are replaced by a rename under a file lock, which the kernel releases when its process ends; their
    version is the digest of their bytes. Uploaded objects appear whole, by a hard link, which never replaces anything;
    on filesystems without hard links by a rename under the same lock. The folder need not exist: it then holds
    nothing, and the first write makes it.
    """

    def __init__(self, root: str, *, url: str | None = None, lock_timeout: float = 60.0) -> None:
        """Name the folder; nothing is created.

        Args:
            root: The run's folder.
            url: The run's name in messages; None: `root`.
            lock_timeout: Seconds that a write waits for another process to release the lock.
        """
        self.url = url if url is not None else root
        self._root = Path(root)
        self._lock_timeout = lock_timeout

    def read(self, key: str, *, limit: int) -> tuple[bytes, Version]:
        """Return a small file's bytes and version."""
        with translated("read", self._name(key)), self._opened(key) as fd:
            size = os.fstat(fd).st_size
            if size > limit:
                raise InvalidRequestError(
                    f"Cannot read {self._name(key)}: it has {size} bytes, and at most {limit} are read at once."
                )
            data = b"".join(read_chunks(fd))
        return data, content_version(data)

    def write(self, key: str, data: bytes, *, expect: Version | Expect) -> Version:
        """Replace a small file by a rename, under the run's lock.

        After an error the file holds the old bytes or the new.

        Raises:
            PreconditionFailedError: The file is not as expected; nothing was written.
            TransientError: Another process held the lock for `lock_timeout` seconds; nothing was written.
        """
        with translated("write", self._name(key)):
            path = self._writable(key)
            # Other processes and threads write too: none of them may come between the comparison and the rename.
            with self._lock():
                self._check(key, expect)
                with self._temporary() as temp:
                    _write_file(temp, data)
                    # Readers take no lock: they open the old file or the new, and a killed writer leaves the old one.
                    temp.replace(path)
                _sync_folder(path.parent)
        return content_version(data)

    def stat(self, key: str) -> ObjectInfo:
        """Return size, time and version of a file."""
        with translated("look at", self._name(key)), self._opened(key) as fd:
            found = os.fstat(fd)
            version = content_version(b"".join(read_chunks(fd))) if found.st_size <= _HASHED else _stat_version(found)
        return _info(key, found, version)

    def upload(
        self,
        key: str,
        source: Path,
        *,
        digests: Digests,
        journal: Journal,
        report: TransferReport,
        base: DeltaBase | None = None,  # noqa: ARG002 - a link sends nothing
        progress: Progress | None = None,
        owner: str | None = None,
    ) -> ObjectInfo:
        """Link `source` into the run, or copy the file there; an existing file is never replaced.

        A file has no place for an owner. With an `owner`, an equal file under the key counts as ours only if it is a
        link to `source`, or if the journal holds its inode.
        """
        with translated("create", self._name(key)):
            path = self._writable(key)
            try:
                if not self._link(source, path, digests):
                    self._copy_in(source, path, digests, journal)
                    report.sent += digests.size
                else:
                    report.reused += digests.size
                _sync_folder(path.parent)
            except FileExistsError as exc:  # an earlier attempt of this upload, or another writer, was first
                self._require_ours(key, digests, exc)
                if owner is not None and not self._is_made_of(path, source, journal):
                    raise PreconditionFailedError(
                        f"Cannot create {self._name(key)}: another writer's equal file has this name."
                    ) from exc
            if progress is not None:
                progress(digests.size)
            return self.stat(key)

    def fetch(
        self,
        key: str,
        target: Path,
        *,
        size: int,
        progress: Progress | None = None,
        landing: Landing | None = None,  # noqa: ARG002 - a copy on the local disk needs no resuming
    ) -> None:
        """Copy a file out of the run, without syncing; a file replaced by rename meanwhile is still read to its end."""
        with translated("fetch", self._name(key)), self._opened(key) as fd:
            found = os.fstat(fd).st_size
            if found != size:
                raise PreconditionFailedError(
                    f"Cannot fetch {self._name(key)}: it has {found} bytes instead of {size}; it was replaced."
                )
            with target.open("wb") as out:
                for chunk in read_chunks(fd):
                    out.write(chunk)
                    if progress is not None:
                        progress(len(chunk))

    def copy(self, source: str, target: str) -> ObjectInfo:
        """Copy under a temporary name, then rename.

        Never a hard link: a program that overwrites the alias in place would overwrite the checkpoint too.
        """
        with translated("copy", self._name(source)), self._opened(source) as fd:
            path = self._writable(target)
            with self._temporary() as temp:
                with temp.open("xb") as out:
                    for chunk in read_chunks(fd):
                        out.write(chunk)
                    _sync_file(out)
                # Synced before the rename: else the name could point to an empty file after a power failure.
                temp.replace(path)
            _sync_folder(path.parent)
        return self.stat(target)

    def delete(self, key: str) -> None:
        """Unlink a file; do nothing if there is none."""
        with translated("delete", self._name(key)):
            try:
                self._path(key).unlink()
            except FileNotFoundError:  # nothing to delete, or another process was first
                return

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the run's files; versions are made from inodes, also for small files (`stat` digests these)."""
        with translated("list", self._name(prefix)):
            top = self._root / prefix.rpartition("/")[0]
            for folder, _, names in os.walk(top, onerror=_raise_unless_missing):
                for name in names:
                    path = Path(folder, name)
                    key = path.relative_to(self._root).as_posix()
                    if not key.startswith(prefix) or key == _LOCK or key.startswith(f"{_TEMPORARY}/"):
                        continue
                    with suppress(FileNotFoundError):  # another process deleted the file after `os.walk` listed it
                        found = path.lstat()
                        if stat.S_ISREG(found.st_mode):
                            yield _info(key, found, _stat_version(found))

    def probe(self) -> Capabilities:
        """Return all capabilities as present, without a test.

        Two of them are not literally true: ranges are never copied (a link sends nothing), and `delete_exactly` is the
        default method: it compares with `stat` before the deletion, in two steps.
        """
        return Capabilities()

    def sweep_uploads(
        self,
        older_than: timedelta,
        *,
        ours: Callable[[str], bool] | None = None,  # noqa: ARG002 - all of them lie in our own folder
        dry_run: bool = False,
    ) -> list[str]:
        """Delete temporary files unchanged for `older_than`, as a killed process leaves them; return their keys."""
        oldest = time.time() - older_than.total_seconds()
        swept = []
        with translated("sweep", self._name(_TEMPORARY)):
            for path in sorted((self._root / _TEMPORARY).glob("*")):
                with suppress(FileNotFoundError):  # its writer has finished after `glob` listed it
                    if path.lstat().st_mtime > oldest:
                        continue
                    if not dry_run:
                        path.unlink()
                    swept.append(f"{_TEMPORARY}/{path.name}")
        return swept

    def reconnect(self) -> None:
        """Do nothing: a folder has no session."""

    def _name(self, key: str) -> str:
        return f"{self.url.rstrip('/')}/{key}"

    def _path(self, key: str) -> Path:
        """Return the path of `key`.

        Raises:
            AccessDeniedError: A folder on the way is a link to the outside of the run.
        """
        path = self._root / key
        if not path.parent.resolve().is_relative_to(self._root.resolve()):
            raise AccessDeniedError(f"Cannot use {self._name(key)}: a symbolic link leads out of the run.")
        return path

    def _writable(self, key: str) -> Path:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        (self._root / _TEMPORARY).mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def _opened(self, key: str) -> Iterator[int]:
        # O_NOFOLLOW: a link under the key is refused (ELOOP): it may lead out of the run. O_NONBLOCK: if somebody put a
        # pipe there, opening it must not wait for the pipe's other end.
        fd = os.open(self._path(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ObjectNotFoundError(f"Cannot read {self._name(key)}: it is not a file.")
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """Yield an unused path on the run's filesystem (renames work there only); delete a file left at the end."""
        temp = self._root / _TEMPORARY / uuid.uuid4().hex
        try:
            yield temp
        finally:
            temp.unlink(missing_ok=True)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        # A file lock, as several processes write to one run. A new `FileLock` for each use: two threads of this process
        # then exclude each other too, as each has its own descriptor.
        lock = FileLock(self._root / _LOCK, timeout=self._lock_timeout, poll_interval=0.005)
        try:
            lock.acquire()
        except Timeout as exc:  # a stopped process, or a slow network mount: the caller may try again later
            raise TransientError(
                f"Cannot lock {self._name(_LOCK)}: another process has held it for {self._lock_timeout:.0f} s."
            ) from exc
        try:
            yield
        finally:
            lock.release()

    def _check(self, key: str, expect: Version | Expect) -> None:
        if expect is Expect.ANYTHING:
            return
        try:
            with self._opened(key) as fd:
                present = content_version(b"".join(read_chunks(fd)))
        except (FileNotFoundError, ObjectNotFoundError):  # ObjectNotFoundError: a folder or a pipe has the name
            if expect is Expect.ABSENT:
                return
            raise PreconditionFailedError(f"Cannot write {self._name(key)}: it has been deleted.") from None
        if present != expect:
            reason = "it exists already" if expect is Expect.ABSENT else "someone else has changed it"
            raise PreconditionFailedError(f"Cannot write {self._name(key)}: {reason}.")

    def _link(self, source: Path, path: Path, digests: Digests) -> bool:
        """Compare the bytes of `source` with `digests`, sync them and link `source` to `path`.

        Returns:
            False where the filesystems allow no hard link.

        Raises:
            FileExistsError: `path` exists; it is left as it is.
        """
        with open_source(source) as fd:
            size, crc = 0, 0
            for chunk in read_chunks(fd):
                size, crc = size + len(chunk), crc32c(chunk, crc)
            require_match(source, digests, size, crc)
            os.fsync(fd)  # a link adds only a name: the bytes must be on the disk before
        try:
            os.link(source, path)  # fails if `path` exists: of two writers exactly one gets the name
            os.utime(path)  # an object is as old as its upload: `Run.sweep` deletes orphans by this time
        except OSError as exc:
            if exc.errno in _NO_HARD_LINKS:
                return False
            raise
        return True

    def _copy_in(self, source: Path, path: Path, digests: Digests, journal: Journal) -> None:
        with self._temporary() as temp:
            _copy_file(source, temp, digests)
            journal.save({"inode": temp.stat().st_ino})  # a link or rename keeps the inode
            # If this process dies after the link, the next one recognises the file as ours by the saved inode.
            try:
                os.link(temp, path)
            except OSError as exc:
                if exc.errno not in _NO_HARD_LINKS:
                    raise
                with self._lock():  # no hard links: the lock keeps other writers of this package away
                    # A rename would replace a file there. `lexists`: a dangling link takes the name too.
                    if os.path.lexists(path):
                        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from exc
                    temp.replace(path)

    def _is_made_of(self, path: Path, source: Path, journal: Journal) -> bool:
        """Return whether an earlier attempt made the file: a link to `source`, or the inode in the journal."""
        found = path.lstat()
        return os.path.samestat(found, source.stat()) or journal.load().get("inode") == found.st_ino

    def _require_ours(self, key: str, digests: Digests, taken: FileExistsError) -> None:
        """Compare the existing object with our size and crc32c.

        Raises:
            PreconditionFailedError: The object has other bytes.
        """
        with self._opened(key) as fd:
            crc = 0
            if os.fstat(fd).st_size == digests.size:
                for chunk in read_chunks(fd):
                    crc = crc32c(chunk, crc)
                if encode(crc) == digests.crc32c:
                    return
        raise PreconditionFailedError(f"Cannot create {self._name(key)}: other bytes have this name.") from taken


def _copy_file(source: Path, temp: Path, digests: Digests) -> None:
    size, crc = 0, 0
    with open_source(source) as fd, temp.open("xb") as out:
        for chunk in read_chunks(fd):
            out.write(chunk)
            size, crc = size + len(chunk), crc32c(chunk, crc)
        _sync_file(out)
    require_match(source, digests, size, crc)


def _write_file(temp: Path, data: bytes) -> None:
    with temp.open("xb") as out:
        out.write(data)
        _sync_file(out)


def _sync_file(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())


def _sync_folder(folder: Path) -> None:
    """Sync a folder, so that a rename or link there survives a power failure; errors are ignored."""
    with suppress(OSError):  # some mounted filesystems cannot sync a folder
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _stat_version(found: os.stat_result) -> Version:
    return Version(f"stat:{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}")


def _info(key: str, found: os.stat_result, version: Version) -> ObjectInfo:
    modified = datetime.fromtimestamp(found.st_mtime, timezone.utc)
    return ObjectInfo(key, found.st_size, version, modified=modified)


def _raise_unless_missing(error: OSError) -> None:
    # A run that does not exist yet is empty, and another process may remove a folder during the walk. All other errors
    # must be raised: `os.walk` would skip the folder, and its objects would count as missing.
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        raise error
