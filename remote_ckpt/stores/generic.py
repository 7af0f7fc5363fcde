"""Runs on the filesystems of fsspec without an adapter of their own."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.callbacks import Callback
from fsspec.spec import AbstractFileSystem

from remote_ckpt.errors import (
    InvalidRequestError,
    ObjectNotFoundError,
    PreconditionFailedError,
    TransientError,
)
from remote_ckpt.location import HIDDEN, Location
from remote_ckpt.stores import _web, identity, insecure_endpoint
from remote_ckpt.stores._generic_errors import translated
from remote_ckpt.stores.base import (
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
from remote_ckpt.stores.emulated_cas import lock_of
from remote_ckpt.stores.sources import open_source, read_chunks, require_match

_TEMPORARY = f"{HIDDEN}/tmp"
_READ_SIZE = 4 << 20
_HASHED = 1 << 20  # bytes; for larger objects `stat` makes the version from the filesystem's metadata
_PASSING = ("name", "type", "time", "atime", "accessTime", "last_access_time")  # reading changes the last four
_NOTE = (
    "This kind of store has no conditional writes: let only one process at a time write to a run "
    "(threads of one process are safe)."
)


class GenericStore(ObjectStore):
    """A run on any fsspec filesystem; uses only operations common to all of them.

    Objects are written under a temporary name and moved to their own name; uploads are read back and compared before
    the move. fsspec has no conditional requests, so only one process at a time may write to a run. Within a process a
    lock for each run makes "compare, then write" one step.
    """

    def __init__(self, location: Location, storage_options: dict[str, Any] | None = None) -> None:
        """Make the filesystem; some (sftp, ftp) connect at once.

        Args:
            location: The run.
            storage_options: The filesystem's own arguments; they win over ours.

        Raises:
            StoreError: The filesystem cannot be made or reached.
        """
        self.url = location.name
        self._location = location
        self._options = dict(storage_options or {})
        self._is_web = location.protocol in _web.PROTOCOLS
        self._lock = lock_of(location.root)
        self._turns = threading.RLock()  # reentrant: `upload` calls `stat` inside its own turn
        self._connect()

    @property
    def server(self) -> str:
        """The hosts, endpoints and accounts in the filesystem's own settings."""
        with translated("reach", self.url):
            return identity.of_filesystem(self._fs)

    def read(self, key: str, *, limit: int) -> tuple[bytes, Version]:
        """Return a small object's bytes, and their digest as the version."""
        with self._turn("read", key):
            size = self._size(key)
            if size is not None and size > limit:
                raise self._too_large(key, size, limit)
            with self._fs.open(self._path(key), "rb") as file:
                data: bytes = file.read(limit + 1)  # web servers may report no size
            if len(data) > limit:
                raise self._too_large(key, len(data), limit)
        return data, content_version(data)

    def write(self, key: str, data: bytes, *, expect: Version | Expect) -> Version:
        """Compare under the run's lock, then write under a temporary name and move.

        The lock excludes threads of this process only. After an error the object has the old bytes or the new where
        the filesystem renames; elsewhere a copy inside the store is as atomic as the store makes it.
        """
        # Always the turn first, then the lock: two threads that took them in reverse order would wait for ever.
        with self._turn("write", key), self._lock:
            self._check(key, expect)
            with self._temporary() as temp:
                self._fs.pipe_file(temp, data)
                self._publish(temp, key)
        return content_version(data)

    def stat(self, key: str) -> ObjectInfo:
        """Return the filesystem's metadata of an object; for at most 1 MiB the version is the digest of the bytes."""
        with self._turn("look at", key):
            info = self._info(key)
            found = self._as_object(key, info)
            if found.size > _HASHED:
                return found
            data = self._fs.cat_file(self._path(key))
        return ObjectInfo(key, found.size, content_version(data), modified=found.modified)

    def upload(
        self,
        key: str,
        source: Path,
        *,
        digests: Digests,
        journal: Journal,  # noqa: ARG002 - no such filesystem resumes an upload
        report: TransferReport,
        base: DeltaBase | None = None,  # noqa: ARG002 - nor copies ranges
        progress: Progress | None = None,
        owner: str | None = None,  # noqa: ARG002 - nor keeps anything beside the bytes
    ) -> ObjectInfo:
        """Put under a temporary name, read back, and move if the name is free."""
        with translated("create", self._name(key)):
            _check_source(source, digests)
        with self._turn("create", key):
            if not self._is_ours(key, digests):
                with self._temporary() as temp:
                    told = _Told(progress, digests.size)
                    self._fs.put_file(os.fspath(source), temp, callback=told)
                    told.rest(digests.size)
                    report.sent += digests.size
                    if self._digest(temp) != (digests.size, digests.crc32c):
                        raise TransientError(f"{self._name(key)} arrived damaged and was removed.")
                    with self._lock:  # another thread may have taken the key while the bytes were sent
                        if not self._is_ours(key, digests):
                            self._publish(temp, key)
            return self.stat(key)

    def fetch(
        self,
        key: str,
        target: Path,
        *,
        size: int,
        progress: Progress | None = None,
        landing: Landing | None = None,  # noqa: ARG002 - no such filesystem fetches in ranges
    ) -> None:
        """Get a whole object; raise `PreconditionFailedError` if its metadata differ before and after."""
        with self._turn("fetch", key):
            # No reads of a particular version: if a writer replaces the object meanwhile, its metadata change.
            before = self._as_object(key, self._info(key))
            if before.size == size:
                told = _Told(progress, size)
                self._fs.get_file(self._path(key), os.fspath(target), callback=told)
            after = self._as_object(key, self._info(key))
        if before.size != size or after.version != before.version or target.stat().st_size != size:
            raise PreconditionFailedError(f"Cannot fetch {self._name(key)}: it was replaced, or is not {size} bytes.")
        told.rest(size)

    def copy(self, source: str, target: str) -> ObjectInfo:
        """Copy to a temporary name and move; through this machine if the filesystem cannot copy."""
        with self._turn("copy", source), self._lock, self._temporary() as temp:
            try:
                self._fs.cp_file(self._path(source), temp)
            except NotImplementedError:  # fsspec's default `cp_file`
                self._copy_through_here(source, temp)
            self._publish(temp, target)
        return self.stat(target)

    def delete(self, key: str) -> None:
        """Delete an object; do nothing if there is none."""
        with self._turn("delete", key), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(key))

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects below the folder part of `prefix`, without temporary ones."""
        with self._turn("list", prefix):
            self._fs.invalidate_cache()  # a cached listing would hide other writers' objects
            folder = prefix.rpartition("/")[0]
            try:
                found = self._fs.find(self._path(folder) if folder else self._root, detail=True)
            except FileNotFoundError:  # the run, or this folder of it, does not exist yet: no objects
                return
        for name, info in found.items():
            key = self._key(name)
            if key.startswith(prefix) and not key.startswith(f"{_TEMPORARY}/"):
                yield self._as_object(key, info)

    def probe(self) -> Capabilities:
        """Return every capability as absent, without a test: fsspec has no conditional requests."""
        return Capabilities(
            create_only=False,
            compare_and_swap=False,
            create_only_upload=False,
            range_copy=False,
            conditional_delete=False,
            owners=False,
            notes=(_NOTE,),
        )

    def sweep_uploads(
        self,
        older_than: timedelta,
        *,
        ours: Callable[[str], bool] | None = None,  # noqa: ARG002 - all of them lie in our own folder
        dry_run: bool = False,
    ) -> list[str]:
        """Delete temporary objects unchanged for `older_than`; return their keys.

        A process that is killed leaves such objects. Objects whose age the filesystem does not report stay.
        """
        oldest = datetime.fromtimestamp(time.time(), timezone.utc) - older_than
        swept = []
        with self._turn("sweep", _TEMPORARY):
            self._fs.invalidate_cache()
            try:
                found = self._fs.find(self._path(_TEMPORARY), detail=True)
            except FileNotFoundError:
                return []
            for name, info in found.items():
                modified = _modified(info)
                if modified is None or modified > oldest:
                    continue
                if not dry_run:
                    with suppress(FileNotFoundError):  # its writer has finished after `find` listed it
                        self._fs.rm_file(name)
                swept.append(name[len(self._root) :].lstrip("/"))
        return swept

    def reconnect(self) -> None:
        """Make a fresh filesystem at once, and so look for credentials again."""
        self._connect()

    def _connect(self) -> None:
        place, options = self._location.root, self._options
        if self._is_web:
            place, options = _web.careful(place, options)
        with translated("reach", self.url):
            self._fs: AbstractFileSystem
            self._fs, root = fsspec.url_to_fs(place, skip_instance_cache=True, **options)
        insecure_endpoint.warn_of_filesystem(self._fs)
        self._root = root.rstrip("/")
        # Cached listings hide objects that other writers added or deleted since. Set here, and not as an argument, as
        # not every constructor takes the argument.
        if hasattr(self._fs, "dircache") and "use_listings_cache" not in self._options:
            self._fs.dircache.use_listings_cache = False

    @contextmanager
    def _turn(self, doing: str, key: str) -> Iterator[None]:
        """Translate errors of the block; let one thread at a time in, unless the filesystem is async.

        Paramiko's SFTP client is not safe on several threads: a thread takes the answer to another thread's request,
        and both wait for ever.
        """
        alone = nullcontext() if isinstance(self._fs, AsyncFileSystem) else self._turns
        with translated(doing, self._name(key)), alone:
            yield

    def _name(self, key: str) -> str:
        return self._location.url(key)

    def _path(self, key: str) -> str:
        return f"{self._root}/{_web.quoted(key) if self._is_web else key}"

    def _key(self, name: str) -> str:
        """Return the key of a name in a listing."""
        key = name[len(self._root) :].lstrip("/")
        return _web.unquoted(key) if self._is_web else key

    def _info(self, key: str) -> dict[str, Any]:
        self._fs.invalidate_cache()
        info: dict[str, Any] = self._fs.info(self._path(key))
        if info.get("type") == "directory":
            raise ObjectNotFoundError(f"Cannot read {self._name(key)}: it is a folder.")
        return info

    def _size(self, key: str) -> int | None:
        size = self._info(key).get("size")
        return None if size is None else int(size)

    def _as_object(self, key: str, info: dict[str, Any]) -> ObjectInfo:
        told = {name: str(info[name]) for name in sorted(info) if name not in _PASSING}
        version = Version(f"info:{hashlib.sha256(repr(told).encode()).hexdigest()}")
        return ObjectInfo(key, int(info.get("size") or 0), version, modified=_modified(info))

    def _too_large(self, key: str, size: int, limit: int) -> InvalidRequestError:
        return InvalidRequestError(
            f"Cannot read {self._name(key)}: it has {size} bytes, and at most {limit} are read at once."
        )

    def _check(self, key: str, expect: Version | Expect) -> None:
        if expect is Expect.ANYTHING:
            return
        try:
            self._info(key)
            present: Version | None = content_version(self._fs.cat_file(self._path(key)))
        except FileNotFoundError:
            present = None
        if present != (None if expect is Expect.ABSENT else expect):
            raise PreconditionFailedError(f"Cannot write {self._name(key)}: someone else has changed it.")

    def _is_ours(self, key: str, digests: Digests) -> bool:
        """Return whether the object exists with our bytes, from an earlier attempt or another writer.

        Raises:
            PreconditionFailedError: The object has other bytes.
        """
        try:
            size = self._size(key)
        except FileNotFoundError:
            return False
        if size == digests.size and self._digest(self._path(key)) == (digests.size, digests.crc32c):
            return True
        raise PreconditionFailedError(f"Cannot create {self._name(key)}: other bytes have this name.")

    def _digest(self, path: str) -> tuple[int, str]:
        size, crc = 0, 0
        with self._fs.open(path, "rb", block_size=_READ_SIZE) as file:
            while chunk := file.read(_READ_SIZE):
                size, crc = size + len(chunk), crc32c(bytes(chunk), crc)
        return size, encode(crc)

    @contextmanager
    def _temporary(self) -> Iterator[str]:
        """Yield an unused path under the run; delete an object left there at the end."""
        temp = self._path(f"{_TEMPORARY}/{uuid.uuid4().hex}")
        with suppress(NotImplementedError, FileExistsError):  # no folders here, or it exists
            self._fs.makedirs(temp.rpartition("/")[0], exist_ok=True)
        try:
            yield temp
        finally:
            with suppress(Exception):  # usually moved already; what stays is left to `sweep_uploads`
                self._fs.rm_file(temp)

    def _publish(self, temp: str, key: str) -> None:
        """Give a temporary object the final name: by a rename if possible, else by a copy inside the store."""
        path = self._path(key)
        with suppress(NotImplementedError, FileExistsError):
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        # A copy is the second choice: whether readers may see half of it depends on the store.
        if _renames(self._fs):
            self._fs.mv(temp, path)
        else:
            self._fs.cp_file(temp, path)

    def _copy_through_here(self, source: str, temp: str) -> None:
        with tempfile.TemporaryDirectory(prefix="remote_ckpt-") as folder:
            local = os.path.join(folder, "copy")  # noqa: PTH118 - fsspec wants strings
            self._fs.get_file(self._path(source), local)
            self._fs.put_file(local, temp)


class _Told(Callback):  # type: ignore[misc]  # fsspec has no types
    """An fsspec callback that calls our progress function with each increase, and fails after more than `most` bytes.

    The failure ends a transfer from a server whose answer has no end.
    """

    def __init__(self, progress: Progress | None, most: int) -> None:
        super().__init__()
        self._progress = progress
        self._most = most
        self._told = 0

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:  # noqa: ARG002 - fsspec's signature
        """Report the bytes that arrived since the last call.

        Raises:
            InvalidRequestError: More than `most` bytes arrived.
        """
        if self.value > self._most:
            raise InvalidRequestError(f"More than {self._most} bytes came, and that is all there should be.")
        self.rest(self.value)

    def rest(self, moved: int) -> None:
        """Report the bytes of `moved` not yet reported: some filesystems never call a callback."""
        if self._progress is not None and moved > self._told:
            self._progress(moved - self._told)
            self._told = moved


def _renames(fs: AbstractFileSystem) -> bool:
    """Return whether `fs` has an `mv` of its own; fsspec's default `mv` copies, expands patterns and then deletes."""
    return type(fs).mv is not AbstractFileSystem.mv and type(fs).mv is not AsyncFileSystem.mv


def _check_source(source: Path, digests: Digests) -> None:
    size, crc = 0, 0
    with open_source(source) as fd:
        for chunk in read_chunks(fd):
            size, crc = size + len(chunk), crc32c(chunk, crc)
    require_match(source, digests, size, crc)


def _modified(info: dict[str, Any]) -> datetime | None:
    """Return the time of the last write, from the first field present; None if the filesystem reports none."""
    for name in ("LastModified", "last_modified", "mtime", "modified", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, timezone.utc)
    return None
