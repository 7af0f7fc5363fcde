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
    Base,
    Capabilities,
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
_HASHED = MIB  # stat() takes the version of larger files from their inode instead of their bytes
_NO_HARD_LINKS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class LocalStore(ObjectStore):
    """A folder as an object store.

    Small objects are replaced by rename under a lock that the kernel drops with its owner, and their version is the
    digest of their bytes. Large objects appear whole, by a hard link, which never replaces anything. The folder need
    not exist: it then holds nothing, and the first write makes it.
    """

    def __init__(self, root: str, *, url: str | None = None, lock_timeout: float = 60.0) -> None:
        """Take the run's folder; `url` is its name in messages, `lock_timeout` is in seconds."""
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
        """Replace a small file under the run's lock."""
        with translated("write", self._name(key)):
            path = self._writable(key)
            with self._lock():
                self._check(key, expect)
                with self._temporary() as temp:
                    _write_file(temp, data)
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
        base: Base | None = None,  # noqa: ARG002 - a link sends nothing
        progress: Progress | None = None,
        owner: str | None = None,
    ) -> ObjectInfo:
        """Link `source` into the run, or copy it there; what is under the key is never replaced.

        Files carry no owner. Ours is the one that is a link to `source`, or that the journal names by its inode.
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
            except FileExistsError as exc:
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
        """Copy a file out of the run."""
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

        Never a hard link: whoever overwrites the alias in place would overwrite the checkpoint.
        """
        with translated("copy", self._name(source)), self._opened(source) as fd:
            path = self._writable(target)
            with self._temporary() as temp:
                with temp.open("xb") as out:
                    for chunk in read_chunks(fd):
                        out.write(chunk)
                    _sync_file(out)
                temp.replace(path)
            _sync_folder(path.parent)
        return self.stat(target)

    def delete(self, key: str) -> None:
        """Unlink a file."""
        with translated("delete", self._name(key)):
            try:
                self._path(key).unlink()
            except FileNotFoundError:
                return

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the run's files; versions come from their inodes, as for large files."""
        with translated("list", self._name(prefix)):
            top = self._root / prefix.rpartition("/")[0]
            for folder, _, names in os.walk(top, onerror=_raise_unless_missing):
                for name in names:
                    path = Path(folder, name)
                    key = path.relative_to(self._root).as_posix()
                    if not key.startswith(prefix) or key == _LOCK or key.startswith(f"{_TEMPORARY}/"):
                        continue
                    with suppress(FileNotFoundError):  # deleted while we walk
                        found = path.lstat()
                        if stat.S_ISREG(found.st_mode):
                            yield _info(key, found, _stat_version(found))

    def probe(self) -> Capabilities:
        """A folder does all of it, and needs no copies of ranges."""
        return Capabilities()

    def sweep_uploads(
        self,
        older_than: timedelta,
        *,
        ours: Callable[[str], bool] | None = None,  # noqa: ARG002 - all of them lie in our own folder
        dry_run: bool = False,
    ) -> list[str]:
        """Remove temporary files that a killed process left behind."""
        oldest = time.time() - older_than.total_seconds()
        swept = []
        with translated("sweep", self._name(_TEMPORARY)):
            for path in sorted((self._root / _TEMPORARY).glob("*")):
                with suppress(FileNotFoundError):  # its owner just finished
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
        """Return the file of `key`, refusing folders that are links to the outside of the run."""
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
        # O_NONBLOCK: opening a pipe that someone put there must not wait for its other end.
        fd = os.open(self._path(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ObjectNotFoundError(f"Cannot read {self._name(key)}: it is not a file.")
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """Yield an unused name on the run's own filesystem; whatever is left there is removed."""
        temp = self._root / _TEMPORARY / uuid.uuid4().hex
        try:
            yield temp
        finally:
            temp.unlink(missing_ok=True)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        lock = FileLock(self._root / _LOCK, timeout=self._lock_timeout, poll_interval=0.005)
        try:
            lock.acquire()
        except Timeout as exc:
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
        except (FileNotFoundError, ObjectNotFoundError):
            if expect is Expect.ABSENT:
                return
            raise PreconditionFailedError(f"Cannot write {self._name(key)}: it has been deleted.") from None
        if present != expect:
            reason = "it exists already" if expect is Expect.ABSENT else "someone else has changed it"
            raise PreconditionFailedError(f"Cannot write {self._name(key)}: {reason}.")

    def _link(self, source: Path, path: Path, digests: Digests) -> bool:
        """Link `source` to `path` if the filesystems allow it, after checking its bytes."""
        with open_source(source) as fd:
            size, crc = 0, 0
            for chunk in read_chunks(fd):
                size, crc = size + len(chunk), crc32c(chunk, crc)
            require_match(source, digests, size, crc)
            os.fsync(fd)
        try:
            os.link(source, path)
            os.utime(path)  # an object is as old as its upload: a sweep goes by that
        except OSError as exc:
            if exc.errno in _NO_HARD_LINKS:
                return False
            raise
        return True

    def _copy_in(self, source: Path, path: Path, digests: Digests, journal: Journal) -> None:
        with self._temporary() as temp:
            _copy_file(source, temp, digests)
            journal.save({"inode": temp.stat().st_ino})  # it keeps it under its own name
            try:
                os.link(temp, path)
            except OSError as exc:
                if exc.errno not in _NO_HARD_LINKS:
                    raise
                with self._lock():  # no hard links here: among ourselves, the lock keeps the name
                    if os.path.lexists(path):
                        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from exc
                    temp.replace(path)

    def _is_made_of(self, path: Path, source: Path, journal: Journal) -> bool:
        """Return whether a file is what an earlier attempt made of `source`."""
        found = path.lstat()
        return os.path.samestat(found, source.stat()) or journal.load().get("inode") == found.st_ino

    def _require_ours(self, key: str, digests: Digests, taken: FileExistsError) -> None:
        """Accept the object there if it has our bytes: an earlier attempt got that far."""
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
    """Make a rename or link in `folder` survive a power failure; some mounted filesystems cannot, and need not."""
    with suppress(OSError):
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
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        raise error
