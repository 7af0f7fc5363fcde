"""What an object store is to this package: a dozen verbs over one run's keys.

Adapters (`local`, `generic`, `s3`, `gcs`) implement `ObjectStore`; wrappers (`retrying`, and in
`remote_ckpt.testing` the stores that misbehave on purpose) implement it too, around another one. Every verb
translates foreign errors into ours, exactly once; none but `upload` and `fetch` retries by itself.
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
from remote_ckpt.stores.spans import Span

Version = NewType("Version", str)
"""Opaque token of an object's state: an ETag, a generation, a digest. Equal tokens mean equal bytes."""

Progress = Callable[[int], None]
"""Called with the number of bytes just done, from whichever thread did them; must return at once and never raise."""

MIB = 1 << 20
BLOCK = 8 * MIB

MOST_LISTED = 1_000_000
"""Objects that `ObjectStore.find` looks at; S3 lists them in a thousand requests."""


class Expect(enum.Enum):
    """What a write expects to find, where it is not a particular version."""

    ANYTHING = "anything"
    ABSENT = "absent"


@dataclass(frozen=True)
class ObjectInfo:
    """What a store knows about one object.

    Attributes:
        key: Relative to the run.
        size: Bytes.
        version: The object's state.
        crc32c: Of the whole object, base64 of the four big-endian bytes as S3 and GCS write it; None where unknown.
        modified: When it was written, by the store's clock; None where unknown. S3 dates an object that was
            sent in parts by the beginning of its upload.
        owner: The `owner` that was given to the upload that made it; None where unknown, and in listings.
    """

    key: str
    size: int
    version: Version
    crc32c: str | None = None
    modified: datetime | None = None
    owner: str | None = None


@dataclass(frozen=True)
class Capabilities:
    """What a store really does, found by trying it (`ObjectStore.probe`).

    Attributes:
        create_only: `write(expect=ABSENT)` is refused when the key is taken.
        compare_and_swap: `write(expect=version)` succeeds with the right version and is refused with a stale one.
        create_only_upload: `upload` of a file large enough for several parts never overwrites.
        range_copy: Parts can be copied inside the store.
        conditional_delete: `delete_exactly` is refused when the object is no longer the one that was seen; elsewhere it
            is looked at just before.
        owners: An upload tells an equal object of another owner from its own; elsewhere equal bytes pass for its own.
        notes: Sentences for the user about what is missing and what it means.
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
        """Whether several processes may write to one run."""
        return self.create_only and self.compare_and_swap


@dataclass(frozen=True)
class Transfer:
    """Tuning of uploads and downloads; what is None adapts to the size and the link.

    Attributes:
        part_size: Bytes of one part.
        concurrency: How many parts are under way at once.
        memory: Bytes that the parts under way may hold together.
        deadline: Seconds after which a transfer, or one of its requests, is no longer tried again.
        max_bandwidth: Bytes per second, for people who share the link with their data loader; None is unlimited.
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
    """Checksums of a local file, computed once while it was sealed.

    Attributes:
        size: Bytes.
        sha256: Hexadecimal.
        crc32c: Base64 of the four big-endian bytes.
        blocks: Hexadecimal XXH3-128 of the file's consecutive blocks of `BLOCK` bytes (the last one shorter), for
            finding what an earlier object already holds; empty when they were not computed.
    """

    size: int
    sha256: str
    crc32c: str
    blocks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Base:
    """An object of the same run whose equal ranges may be copied inside the store instead of being sent.

    A base that has vanished or changed costs time, never correctness.
    """

    key: str
    digests: Digests


class Journal(Protocol):
    """Where an upload notes what a later process needs to resume it; lives beside the spool entry."""

    def load(self) -> dict[str, Any]:
        """Return what was saved last; empty at first."""

    def save(self, state: dict[str, Any]) -> None:
        """Replace the notes, durably, before the next request is made."""


@dataclass
class MemoryJournal:
    """A journal for uploads that nobody will resume."""

    state: dict[str, Any] = field(default_factory=dict)

    def load(self) -> dict[str, Any]:
        """Return what was saved last; empty at first."""
        return dict(self.state)

    def save(self, state: dict[str, Any]) -> None:
        """Replace the notes."""
        self.state = dict(state)


class Landing(Protocol):
    """Knows which bytes of a download are there: so that a later one fetches only the rest, and to follow them."""

    def missing(self, version: Version) -> list[Span]:
        """Return, in order, the ranges that the target does not hold of this very version.

        Asked before the first range of a round is fetched, from a thread that may wait for the disk. What the target
        holds of another version is forgotten by it.

        Raises:
            OSError: The local disk refused.
        """

    def landed(self, start: int, end: int) -> None:
        """Take note that bytes [start, end) have been written and will not change, from whichever thread wrote them.

        Raises:
            OSError: The local disk refused.
        """


@dataclass
class TransferReport:
    """How an upload went; counted by the store while it works.

    Attributes:
        sent: Bytes that crossed the network, repeated parts included.
        reused: Bytes that were copied inside the store or found there.
        retries: Requests that were made again.
    """

    sent: int = 0
    reused: int = 0
    retries: int = 0


class ObjectStore(ABC):
    """The objects under one run's prefix. Safe to use from several threads; not across a fork.

    Keys are relative to the run, validated by the caller (`location.validate_key`).

    Every verb may raise, beside what it names: `TransientError` (try again later), `CredentialsExpiredError` (call
    `reconnect`, then once more), `AccessDeniedError`, `BucketNotFoundError`, `InvalidRequestError`.
    """

    url: str
    """The run's URL for messages, without a password."""

    @property
    def server(self) -> str:
        """The service as its own client resolved it, for telling places apart; never with a secret. Nothing is sent.

        Empty where there is only one: this machine's disks, this process's memory.

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
        """Write a small object in one request; readers see the old bytes or the new.

        Raises:
            PreconditionFailedError: The object is not as expected; nothing was written.
            OutcomeUnknownError: The answer was lost; it may have been written. Never tried again by the store.
        """

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo:
        """Return what the store knows about an object, never from a cache.

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
        base: Base | None = None,
        progress: Progress | None = None,
        owner: str | None = None,
    ) -> ObjectInfo:
        """Create an object from a local file, whole or not at all; never overwrite.

        Parts are tried again within the store's `Transfer.deadline`. The result's size and checksum have been compared
        with `digests`. A lost answer is resolved by looking: an object with these very digests counts as ours, if it
        has this owner too (`Capabilities.owners`): an equal one of another owner is deleted when that one wants. After
        an error the key is absent or another writer's; what `journal` holds lets a later call go on.

        Args:
            key: The object's key.
            source: The file.
            digests: Of the file.
            journal: What an earlier call noted, and where this one does.
            report: Counts bytes and retries.
            base: What may be copied instead of being sent.
            progress: Told of each part.
            owner: ASCII; travels with the object, beside its bytes. None: equal bytes are enough.

        Raises:
            PreconditionFailedError: The key is taken, by other bytes or by another owner's; choose another key.
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
        After an error `target` may hold anything; what `landing` was told of lets a later call go on.

        Args:
            key: The object's key.
            target: Where to write; never a symbolic link.
            size: Bytes that the object must have.
            progress: Told of bytes as they are written; not of those that `landing` had.
            landing: Asked what `target` already holds, and told of what has come; a store that does not fetch in
                ranges ignores it, and writes the whole file.

        Raises:
            ObjectNotFoundError: No such key, or it vanished meanwhile.
            PreconditionFailedError: The object changed meanwhile, or its size is not `size`.
        """

    @abstractmethod
    def copy(self, source: str, target: str) -> ObjectInfo:
        """Copy inside the store, replacing `target`; readers of `target` see the old bytes or the new.

        Raises:
            ObjectNotFoundError: `source` does not exist.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete an object; one that does not exist is deleted already."""

    def delete_exactly(self, seen: ObjectInfo) -> None:
        """Delete an object that is still as `stat` has just returned it; one that does not exist is deleted already.

        One request where the store compares by itself (`Capabilities.conditional_delete`), else a look before it.

        Raises:
            PreconditionFailedError: It is another one by now; nothing was deleted.
        """
        try:
            present = self.stat(seen.key)
        except ObjectNotFoundError:
            return
        if present.version != seen.version:
            raise PreconditionFailedError(f"Cannot delete {self.url}/{seen.key}: someone else has written it.")
        self.delete(seen.key)

    def delete_if(self, key: str, wanted: Callable[[ObjectInfo], bool]) -> bool:
        """Delete an object if `wanted` says so of it, and it is still that one; return whether nothing is there now.

        It is looked at before each attempt: a name that was free for a moment may be another writer's by the time that
        a deletion whose answer was lost is tried again.
        """
        try:
            found = self.stat(key)
        except ObjectNotFoundError:
            return True
        if not wanted(found):
            return False
        try:
            self.delete_exactly(found)
        except PreconditionFailedError:
            return False
        return True

    @abstractmethod
    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with `prefix`, in any order, never from a cache."""

    def find(self, name: str, *, most: int = MOST_LISTED) -> list[str]:
        """Return the keys whose last part is `name`, in their order; not those in folders that begin with a dot.

        Raises:
            InvalidRequestError: There are more than `most` objects to look at.
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
        """Find out by trying what the store does; writes and deletes small objects under the hidden folder."""

    @abstractmethod
    def sweep_uploads(
        self, older_than: timedelta, *, ours: Callable[[str], bool] | None = None, dry_run: bool = False
    ) -> list[str]:
        """Abort unfinished uploads under this run's prefix and return their keys.

        Args:
            older_than: Only those of which nothing has been sent for so long.
            ours: Returns whether an upload to a key may be one of ours, where such are listed by their keys; None: all
                under the prefix are.
            dry_run: Only return the keys.
        """

    @abstractmethod
    def reconnect(self) -> None:
        """Forget sessions and credentials; the next verb makes fresh ones."""

    def within(self, deadline: float) -> ObjectStore:  # noqa: ARG002 - a store that does not retry has no deadline
        """Return the same store, giving up after `deadline` seconds of trying: for someone who waits for the answer."""
        return self

    def close(self) -> None:  # noqa: B027 - most stores hold nothing
        """Let go of connections; verbs may not be used afterwards."""
