"""The interface of an object store: about a dozen verbs on the objects of a run.

Adapters (`local`, `generic`, `s3`, `gcs`) implement `ObjectStore`. Wrappers implement it too, around another store:
`retrying`, and in `remote_ckpt.testing` the stores that misbehave on purpose. Every verb of an adapter translates
foreign errors into ours, exactly once. Of the adapters' verbs only `upload` and `fetch` retry (in S3 and GCS);
`retrying` repeats all verbs.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NewType, Protocol

from remote_ckpt.errors import InvalidRequestError, ObjectNotFoundError, PreconditionFailedError
from remote_ckpt.retry import RetryPolicy
from remote_ckpt.stores.byte_ranges import Span

Version = NewType("Version", str)
"""Opaque token of an object's state: an ETag, a generation, a digest. Equal tokens mean equal bytes."""

Progress = Callable[[int], None]
"""Called with the number of bytes just moved, on the thread that moved them; must return at once and never raise."""

MIB = 1 << 20
BLOCK = 8 * MIB

MOST_LISTED = 1_000_000
"""The most objects that `ObjectStore.find` lists; S3 lists a million in a thousand requests."""


class Expect(enum.Enum):
    """The expected state of an object before a write, where no particular version is expected."""

    ANYTHING = "anything"
    ABSENT = "absent"


@dataclass(frozen=True)
class ObjectInfo:
    """Properties of an object, as the store reports them.

    Attributes:
        key: Relative to the run.
        size: Bytes.
        version: The object's state. `scan` and `stat` may give different tokens for the same state (small objects of
            local folders and of fsspec's filesystems): compare only versions from the same verb.
        crc32c: Of the whole object, base64 of the four big-endian bytes as S3 and GCS write it; None where unknown.
        modified: When the object was written, by the store's clock; None where unknown. For an object sent in parts
            S3 reports the time at which the upload began.
        owner: The `owner` given to the upload that made the object; None where unknown, and in S3's listings.
    """

    key: str
    size: int
    version: Version
    crc32c: str | None = None
    modified: datetime | None = None
    owner: str | None = None


@dataclass(frozen=True)
class Capabilities:
    """Capabilities of a store; `ObjectStore.probe` tests them where servers differ.

    Attributes:
        create_only: `write(expect=ABSENT)` is refused when the key is taken.
        compare_and_swap: `write(expect=version)` succeeds with the right version and is refused with a stale one.
        create_only_upload: `upload` of a file large enough for several parts never overwrites.
        range_copy: Parts can be copied inside the store.
        conditional_delete: The store itself refuses `delete_exactly` when the object has changed; where False,
            `delete_exactly` compares with `stat` just before the deletion.
        owners: An upload distinguishes its own object from another owner's object with equal bytes; where False, any
            object with equal bytes counts as its own.
        notes: Sentences for the user: which capability is missing, and what follows.
    """

    create_only: bool = True
    compare_and_swap: bool = True
    create_only_upload: bool = True
    range_copy: bool = True
    conditional_delete: bool = True
    owners: bool = True
    notes: tuple[str, ...] = ()

    @property
    def many_writers(self) -> bool:
        """Whether several processes may write to the same run."""
        return self.create_only and self.compare_and_swap


@dataclass(frozen=True)
class Transfer:
    """Tuning of uploads and downloads; `part_size` and `concurrency` adapt to the size and the link when None.

    Attributes:
        part_size: Bytes of one part.
        concurrency: How many parts are under way at once.
        memory: Bytes that the parts under way may hold together.
        deadline: Seconds after which a transfer, or a request of it, is no longer tried again.
        max_bandwidth: Bytes per second, for a link shared with the data loader; None is unlimited.
    """

    part_size: int | None = None
    concurrency: int | None = None
    memory: int = 128 * MIB
    deadline: float = 600.0
    max_bandwidth: float | None = None

    @property
    def retry(self) -> RetryPolicy:
        """The same deadline as a retry policy."""
        return RetryPolicy(deadline=self.deadline)


@dataclass(frozen=True)
class Digests:
    """Checksums of a local file, computed when the file was sealed.

    Attributes:
        size: Bytes.
        sha256: Hexadecimal.
        crc32c: Base64 of the four big-endian bytes.
        blocks: Hexadecimal XXH3-64 of the file's consecutive blocks of `BLOCK` bytes (the last may be shorter), to
            find equal blocks in an earlier object; empty when not computed.
    """

    size: int
    sha256: str
    crc32c: str
    blocks: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeltaBase:
    """An earlier object of the same run: an upload may copy equal ranges from there inside the store, not send them.

    A base that has vanished or changed costs time, never correctness.
    """

    key: str
    digests: Digests


class Journal(Protocol):
    """State of an unfinished upload, saved for a later process to resume the upload; stored beside the spool entry."""

    def load(self) -> dict[str, Any]:
        """Return the state saved last; empty at first."""

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state durably: the upload makes its next request only after the return."""


@dataclass
class MemoryJournal:
    """A journal in memory, for uploads without a later process to resume them."""

    state: dict[str, Any] = field(default_factory=dict)

    def load(self) -> dict[str, Any]:
        """Return a copy of the state saved last; empty at first."""
        return dict(self.state)

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state."""
        self.state = dict(state)


class Landing(Protocol):
    """Progress of a download on the local disk: the byte ranges already written to the target.

    With it a later download fetches only the missing ranges, and a digest can be computed while the bytes arrive.
    """

    def missing(self, version: Version) -> list[Span]:
        """Return, in order, the ranges of `version` still missing in the target.

        Called at the beginning of each round, before any range is fetched, on a thread that may wait for the disk.
        Bytes of another version in the target are discarded.

        Raises:
            OSError: The local disk refused.
        """

    def landed(self, start: int, end: int) -> None:
        """Count bytes [start, end) as written for good; called after the write, on the thread of the write.

        Raises:
            OSError: The local disk refused.
        """


@dataclass
class TransferReport:
    """Counters of an upload, updated by the store while the upload runs.

    Attributes:
        sent: Bytes that crossed the network, repeated parts included.
        reused: Bytes that were copied or linked inside the store, or found there.
        retries: Requests that were made again.
    """

    sent: int = 0
    reused: int = 0
    retries: int = 0


class ObjectStore(ABC):
    """The objects under the prefix of a run. Stores may be used from several threads, not across a fork.

    Keys are relative to the run, validated by the caller (`location.validate_key`).

    Every verb may raise, beside the errors in its own docstring: `TransientError` (try again later),
    `CredentialsExpiredError` (call `reconnect`, then try once more), `AccessDeniedError`, `BucketNotFoundError`,
    `InvalidRequestError`; verbs that write also `StoreFullError`.
    """

    url: str
    """The run's URL for messages, without a password."""

    @property
    def server(self) -> str:
        """Name of the service, as resolved by the service's client; never contains a secret.

        With this name the spool keeps runs apart that have equal URLs on different servers. No request goes to the
        service. Empty for this machine's disks, this process's memory, and where the settings name no server.

        Raises:
            StoreError: The client cannot be made with these settings.
        """
        return ""

    @abstractmethod
    def read(self, key: str, *, limit: int) -> tuple[bytes, Version]:
        """Return a small object's bytes and the version they belong to, never from a cache.

        Raises:
            ObjectNotFoundError: No such key (a missing bucket is `BucketNotFoundError`, a refusal `AccessDeniedError`).
            InvalidRequestError: The object is larger than `limit` bytes; nothing is read then.
        """

    @abstractmethod
    def write(self, key: str, data: bytes, *, expect: Version | Expect) -> Version:
        """Write a small object; readers see the old bytes or the new, never a mixture.

        Raises:
            PreconditionFailedError: The object is not as expected. Nothing was written, unless the client library
                repeated the request after a lost answer: then the object may hold `data`.
            OutcomeUnknownError: The answer was lost; the object may hold `data`. No store repeats a conditional write
                after this error: only the caller can recognise its own write, by reading the object.
        """

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo:
        """Return the properties of an object, never from a cache.

        Raises:
            ObjectNotFoundError: No such key.
        """

    @abstractmethod
    def upload(
        self,
        key: str,
        source: Path,
        *,
        digests: Digests,
        journal: Journal,
        report: TransferReport,
        base: DeltaBase | None = None,
        progress: Progress | None = None,
        owner: str | None = None,
    ) -> ObjectInfo:
        """Create an object from a local file, whole or not at all; never overwrite.

        Parts are tried again within the store's `Transfer.deadline`. The result's size and checksum have been compared
        with `digests`. After a lost answer the store looks at the key: an object with these very digests counts as
        ours, if it also has this owner (`Capabilities.owners`). An equal object of another owner does not: its owner
        may delete it at any time. After an error the key is absent, or holds another writer's object, or (when the
        last answer was lost) our object: a later call finds it. With the same `journal` a later call resumes.

        Args:
            key: The object's key.
            source: The file.
            digests: Of the file.
            journal: Holds the state that an earlier call saved; this call saves its own there.
            report: Counts bytes and retries.
            base: An object whose equal ranges may be copied instead of being sent.
            progress: Called with the bytes of each part.
            owner: ASCII; stored with the object, beside its bytes. None: equal bytes are enough.

        Raises:
            PreconditionFailedError: The key is taken, by other bytes or by another owner's object; choose another key.
            SpoolError: The file cannot be opened.
            CorruptCheckpointError: The file differs from `digests`.
        """

    @abstractmethod
    def fetch(
        self,
        key: str,
        target: Path,
        *,
        size: int,
        progress: Progress | None = None,
        landing: Landing | None = None,
    ) -> None:
        """Write an object of `size` bytes to the local file `target`, which is created or overwritten.

        All ranges belong to one version of the object. The bytes are not yet verified: the caller compares digests.
        After an error `target` may hold anything; with the same `landing` a later call resumes.

        Args:
            key: The object's key.
            target: The file to write; must not be a symbolic link.
            size: Bytes that the object must have.
            progress: Called with the number of bytes as they are written; not for bytes that `landing` already had.
            landing: Its `missing` gives the ranges to fetch, its `landed` is called for each range written. A store
                that does not fetch in ranges ignores it and writes the whole file.

        Raises:
            ObjectNotFoundError: No such key, or the object vanished meanwhile.
            PreconditionFailedError: The object changed meanwhile, or its size is not `size`.
            SpoolError: `target` cannot be written (from S3 and GCS; the other stores raise a `StoreError`).
        """

    @abstractmethod
    def copy(self, source: str, target: str) -> ObjectInfo:
        """Copy inside the store, replacing `target`; readers of `target` see the old bytes or the new.

        Raises:
            ObjectNotFoundError: `source` does not exist.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete an object; do nothing if the object does not exist."""

    def delete_exactly(self, seen: ObjectInfo) -> None:
        """Delete an object if its version is still `seen.version`; do nothing if the object does not exist.

        S3 and GCS compare and delete in one request, if the server honours the condition. Else the store compares with
        `stat` first, and another writer may replace the object between the two requests.

        Args:
            seen: What `stat` has just returned.

        Raises:
            PreconditionFailedError: The object has another version by now; nothing was deleted.
        """
        try:
            present = self.stat(seen.key)
        except ObjectNotFoundError:
            return
        # Two steps: if another writer replaces the object between `stat` and `delete`, the new object is deleted.
        if present.version != seen.version:
            raise PreconditionFailedError(f"Cannot delete {self.url}/{seen.key}: someone else has written it.")
        self.delete(seen.key)

    def delete_if(self, key: str, wanted: Callable[[ObjectInfo], bool]) -> bool:
        """Delete an object if `wanted` accepts the object; return whether the key is free afterwards.

        False means: `wanted` refused, or another writer replaced the object meanwhile. Repeating is safe, because each
        call looks again: after a deletion whose answer was lost, another writer may already have taken the free key.
        """
        try:
            found = self.stat(key)
        except ObjectNotFoundError:  # also: an earlier attempt deleted the object, and its answer was lost
            return True
        if not wanted(found):
            return False
        try:
            self.delete_exactly(found)
        except PreconditionFailedError:  # another writer took the key after our `stat`
            return False
        return True

    @abstractmethod
    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects with keys starting with `prefix`, in any order, never from a cache."""

    def find(self, name: str, *, most: int = MOST_LISTED) -> list[str]:
        """Return the keys with `name` as last part, sorted; folders beginning with a dot are left out.

        Raises:
            InvalidRequestError: The run has more than `most` objects.
        """
        keys = []
        for count, found in enumerate(self.scan()):
            if count >= most:
                raise InvalidRequestError(f"There are more than {most:,} objects in {self.url}. Name a deeper folder.")
            *folders, last = found.key.split("/")
            if last == name and not any(folder.startswith(".") for folder in folders):
                keys.append(found.key)
        return sorted(keys)

    @abstractmethod
    def probe(self) -> Capabilities:
        """Return the store's capabilities.

        S3 and GCS test them with small objects under the hidden folder, delete these, and cache the result
        (`probe_cache`). The other stores return fixed values.
        """

    @abstractmethod
    def sweep_uploads(
        self, older_than: timedelta, *, ours: Callable[[str], bool] | None = None, dry_run: bool = False
    ) -> list[str]:
        """Abort unfinished uploads under this run's prefix and return their keys.

        Args:
            older_than: Abort only uploads that have received nothing for at least this time.
            ours: Called with the key of an upload, where the service lists uploads by their keys (S3); returns whether
                the upload may be of this run. None: all uploads under the prefix are.
            dry_run: Only return the keys; abort nothing.
        """

    @abstractmethod
    def reconnect(self) -> None:
        """Forget sessions and credentials; later verbs use fresh sessions and look for credentials again."""

    def within(self, deadline: float) -> ObjectStore:  # noqa: ARG002 - a store that does not retry has no deadline
        """Return this store with at most `deadline` seconds of retries, for a caller waiting for the answer."""
        return self

    def close(self) -> None:  # noqa: B027 - most stores hold nothing
        """Close connections; verbs may not be used afterwards."""
