"""A store in this process's memory, with every guarantee there is: the plainest `ObjectStore`, and the fastest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

from remote_ckpt.errors import InvalidRequestError, ObjectNotFoundError, PreconditionFailedError
from remote_ckpt.stores import checksums
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
from remote_ckpt.stores.sources import require_match


class _Object(NamedTuple):
    data: bytes
    version: Version
    modified: datetime
    owner: str | None = None


class MemoryStore(ObjectStore):
    """Objects in a dictionary. Threads: any; every verb is one step."""

    def __init__(self, url: str = "memory-store://run"):
        """Make an empty run; `url` is its name in messages."""
        self.url = url
        self._objects: dict[str, _Object] = {}
        self._lock = threading.RLock()
        self._count = 0

    def read(self, key: str, *, limit: int) -> tuple[bytes, Version]:
        """Return an object's bytes."""
        found = self._get(key)
        if len(found.data) > limit:
            raise InvalidRequestError(f"{self.url}/{key} has {len(found.data)} bytes, and at most {limit} are read.")
        return found.data, found.version

    def write(self, key: str, data: bytes, *, expect: Version | Expect) -> Version:
        """Replace an object if it is as expected."""
        with self._lock:
            present = self._objects.get(key)
            as_expected = (
                expect is Expect.ANYTHING
                or (present is None and expect is Expect.ABSENT)
                or (present is not None and present.version == expect)
            )
            if not as_expected:
                raise PreconditionFailedError(f"Cannot write {self.url}/{key}: someone else has changed it.")
            return self._put(key, bytes(data)).version

    def stat(self, key: str) -> ObjectInfo:
        """Return an object's size, checksum and version."""
        return _info(key, self._get(key))

    def upload(
        self,
        key: str,
        source: Path,
        *,
        digests: Digests,
        journal: Journal,  # noqa: ARG002 - nothing is left to resume
        report: TransferReport,
        base: DeltaBase | None = None,  # noqa: ARG002 - nothing is copied
        progress: Progress | None = None,
        owner: str | None = None,
    ) -> ObjectInfo:
        """Take in a local file, unless something else has the key."""
        data = source.read_bytes()
        require_match(source, digests, len(data), checksums.crc32c(data))
        with self._lock:
            present = self._objects.get(key)
            if present is not None and (present.data != data or owner not in (None, present.owner)):
                raise PreconditionFailedError(f"Cannot create {self.url}/{key}: something else has this name.")
            found = present or self._put(key, data, owner)
        report.sent += len(data)
        if progress is not None:
            progress(len(data))
        return _info(key, found)

    def fetch(
        self,
        key: str,
        target: Path,
        *,
        size: int,
        progress: Progress | None = None,
        landing: Landing | None = None,  # noqa: ARG002 - the whole file is written
    ) -> None:
        """Write an object to a local file."""
        data = self._get(key).data
        if len(data) != size:
            raise PreconditionFailedError(f"Cannot fetch {self.url}/{key}: it has {len(data)} bytes instead of {size}.")
        target.write_bytes(data)
        if progress is not None:
            progress(size)

    def copy(self, source: str, target: str) -> ObjectInfo:
        """Copy an object."""
        with self._lock:
            return _info(target, self._put(target, self._get(source).data))

    def delete(self, key: str) -> None:
        """Forget an object."""
        with self._lock:
            self._objects.pop(key, None)

    def delete_exactly(self, seen: ObjectInfo) -> None:
        """Forget an object if it is still that one."""
        with self._lock:
            super().delete_exactly(seen)

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield what is there at this moment."""
        with self._lock:
            found = list(self._objects.items())
        return iter([_info(key, stored) for key, stored in found if key.startswith(prefix)])

    def probe(self) -> Capabilities:
        """It does all but copy ranges, as it sends nothing."""
        return Capabilities(range_copy=False)

    def sweep_uploads(
        self,
        older_than: timedelta,  # noqa: ARG002
        *,
        ours: Callable[[str], bool] | None = None,  # noqa: ARG002
        dry_run: bool = False,  # noqa: ARG002
    ) -> list[str]:
        """Nothing is ever unfinished."""
        return []

    def reconnect(self) -> None:
        """Do nothing: there is no session."""

    def age(self, by: timedelta) -> None:
        """Let time pass for all that is there now: each object was changed longer ago by `by`."""
        with self._lock:
            for key, found in self._objects.items():
                self._objects[key] = found._replace(modified=found.modified - by)

    def _get(self, key: str) -> _Object:
        with self._lock:
            found = self._objects.get(key)
        if found is None:
            raise ObjectNotFoundError(f"{self.url}/{key} does not exist.")
        return found

    def _put(self, key: str, data: bytes, owner: str | None = None) -> _Object:
        self._count += 1
        made = _Object(data, Version(f"{self._count}"), datetime.now(timezone.utc), owner)
        self._objects[key] = made
        return made


def _info(key: str, found: _Object) -> ObjectInfo:
    crc = checksums.encode(checksums.crc32c(found.data))
    return ObjectInfo(key, len(found.data), found.version, crc, found.modified, found.owner)
