"""The compare-and-swap loop that makes a checkpoint visible, and never lets the best get worse."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from remote_ckpt.checkpoint import MAX_MANIFEST_BYTES, Checkpoint, Manifest, Segment, Series
from remote_ckpt.checkpoint.signing import UNSIGNED, Signer
from remote_ckpt.commit.archive import Archive
from remote_ckpt.commit.segments import segments_of
from remote_ckpt.errors import (
    CommitConflictError,
    CommitOutcomeUnknownError,
    ManifestError,
    ObjectNotFoundError,
    OutcomeUnknownError,
    PreconditionFailedError,
)
from remote_ckpt.location import MANIFEST_KEY, Location
from remote_ckpt.policy import Mode, is_better
from remote_ckpt.retry import RetryPolicy
from remote_ckpt.spool import Terms
from remote_ckpt.stores.base import Expect, ObjectStore, Version

log = logging.getLogger("remote_ckpt")

ROUNDS = RetryPolicy(deadline=120.0, first_wait=0.05, longest_wait=4.0)
"""GCS takes about one write a second to one name (its documentation), so late rounds wait for seconds."""


@dataclass(frozen=True)
class Commit:
    """What a commit led to.

    Attributes:
        manifest: As it is in the store now.
        series: The candidate's series in it.
        is_best: Whether the candidate is the best now.
        pruned: Records that fell out of retention by this commit; their objects may be deleted.
    """

    manifest: Manifest
    series: Series
    is_best: bool
    pruned: tuple[Checkpoint, ...] = ()


@dataclass
class Committer:
    """Reads and changes one run's manifest.

    A change is a pure function from manifest to manifest that does nothing to one that already has it. So every round
    begins by looking for our own write, and a lost answer or another writer's commit leads to the same next step:
    wait, and read again.

    How long to wait is remembered from one commit to the next: doubled by each lost round, halved by each commit. A
    writer that forgot it after a success would commit again at once, with a view that is up to date, and win against
    those that wait until they give up (the capture effect of exponential backoff: Bharghavan et al., MACAW, 1994).

    Threads: any, one commit at a time.
    """

    store: ObjectStore
    location: Location
    policy: RetryPolicy = ROUNDS
    signer: Signer = UNSIGNED
    _cached: tuple[Manifest, Version | Expect] | None = None
    _wait: float = 0.0  # seconds; the bound of the next one
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Know where the older records are."""
        self.archive = Archive(self.store, self.location)

    def load(self, *, to_write: bool = False) -> Manifest:
        """Return the manifest as it is in the store; an empty one while there is none.

        Args:
            to_write: Whether it will be changed, which a signed one cannot be without the key.

        Raises:
            ManifestError: What is there is not a manifest we can read (or write to).
            StoreError: The store refused; "forbidden" is never taken for "nothing there".
        """
        with self._lock:
            manifest = self._read()[0]
        if to_write:
            self.signer.require_key(manifest.model_extra, self.location.url(MANIFEST_KEY))
        return manifest

    def recall(self) -> Manifest:
        """Return the manifest as this process saw it last; it is read only if it never was.

        Raises: as `load`.
        """
        with self._lock:
            self._cached = self._cached or self._read()
            return self._cached[0]

    def commit(self, candidate: Checkpoint, terms: Terms, blocks: Sequence[str] = ()) -> Commit:
        """Make `candidate` visible, and the best if it beats the present best.

        The object it names must already be complete in the store. A worse score never replaces a better one, whoever
        else writes. Repeating changes nothing. After any error the manifest holds the old state or the new one, never a
        mixture. A best whose object the user has deleted counts for nothing.

        Args:
            candidate: A checkpoint whose object has been uploaded and verified.
            terms: How its series is kept.
            blocks: Digests of the object's blocks, see `stores.Digests`, for the delta of the next checkpoint.

        Returns:
            What was committed, and whether the candidate is the best now.

        Raises:
            CommitConflictError: Other writers won every round until the time budget ran out.
            CommitOutcomeUnknownError: The last answer was lost; the candidate may be visible. Delete nothing.
            ManifestError: The manifest in the store, or older records that it speaks of, cannot be read.
        """
        name = candidate.series
        retention = terms.keep_best is not None or terms.keep_last is not None
        pruned: tuple[Checkpoint, ...] = ()
        exists = self._remembering_exists()

        def add(manifest: Manifest) -> Manifest:
            nonlocal pruned
            series = manifest.of(name) or Series(monitor=terms.monitor, mode=terms.mode)
            if self.archive.knows(name, series, candidate):
                return manifest
            if retention:
                series = self._with_all_records(name, series)
            if _replaced_by(candidate, series):
                series = self._with_all_records(name, series)
                series = series.without(_replaced_by(candidate, series))
            series = series.model_copy(update={"alias": terms.alias})
            monitor, mode = _judge_of(candidate, terms, series)
            added = candidate.scored_by(monitor) if monitor != terms.monitor else candidate
            series = self.judged(name, series, monitor, mode)
            series, deleted = self.without_deleted(name, series, added, exists)
            series, gone = series.with_checkpoint(added).pruned(terms.keep_best, terms.keep_last)
            pruned = (*deleted, *gone)
            return manifest.with_series(name, series.with_base(candidate.id, blocks))

        manifest = self.change(add, hold={name} if retention else ())
        series = manifest.series[name]
        return Commit(manifest, series, series.best == candidate.id, pruned)

    def change(self, change: Callable[[Manifest], Manifest], *, hold: Collection[str] = ()) -> Manifest:
        """Apply `change` to the manifest in the store; return the manifest that holds it.

        Args:
            change: Without side effects, as it may be called for each round; returns the very object it was given
                when there is nothing (more) to do. It may bring back a series' whole past: only the recent stays.
            hold: Series whose records all stay in the manifest, see `segments.frozen`.

        Raises: as `commit`.
        """
        written: dict[str, Segment] = {}

        def attempt() -> Manifest:
            manifest, version, changed = self._changed(change)
            if changed is manifest:
                self._cached = (manifest, version)
                return manifest
            changed, objects = self.archive.frozen(changed, segments_of(manifest) | written, hold)
            data = self._signed(changed)
            self.archive.write(objects)
            written.update(segments_of(changed))
            self._cached = (changed, self.store.write(MANIFEST_KEY, data, expect=version))
            return changed

        try:
            with self._lock:
                return self._in_rounds(attempt)
        except PreconditionFailedError as exc:
            raise CommitConflictError(
                f"Other writers changed {self.location.url(MANIFEST_KEY)} in every round for "
                f"{self.policy.deadline:.0f} s. Nothing was lost; it is tried again with the next checkpoint."
            ) from exc
        except OutcomeUnknownError as exc:
            raise CommitOutcomeUnknownError(
                f"The store did not answer whether {self.location.url(MANIFEST_KEY)} was written: {exc}"
            ) from exc

    def knows(self, record: Checkpoint) -> bool:
        """Return whether `record` was ever committed, pruned or not.

        Raises: as `load`.
        """
        series = self.load().of(record.series)
        return series is not None and self.archive.knows(record.series, series, record)

    def judged(self, name: str, series: Series, monitor: str, mode: Mode) -> Series:
        """Return a series judged by a metric; by another one than before, all its records are asked."""
        if (monitor, mode) == (series.monitor, series.mode):
            return series
        return self.archive.whole(name, series).scored_by(monitor, mode)

    def without_deleted(
        self,
        name: str,
        series: Series,
        candidate: Checkpoint | None = None,
        exists: Callable[[str], bool] | None = None,
    ) -> tuple[Series, tuple[Checkpoint, ...]]:
        """Return a series without a best that the user has deleted, and the records that went.

        Looks only where it matters: when the best would stand in `candidate`'s way, or under a fixed name.
        """
        exists = exists or self._exists
        if series.alias and series.alias_seen and series.checkpoints and not exists(name):
            log.warning("%s was deleted: its checkpoints count for nothing now.", self.location.url(name))
            series = self._with_all_records(name, series)
            gone = series.checkpoints
            return series.without({c.id for c in gone}).model_copy(update={"alias_seen": False}), gone
        deleted: list[Checkpoint] = []
        while (best := series.find("best")) is not None:
            if candidate is not None and is_better(candidate.score, best.score, series.mode):
                break
            if exists(best.key):
                break
            log.warning("%s was deleted: it is no longer the best.", best.url or self.location.url(best.key))
            series = self._with_all_records(name, series).without({best.id})
            deleted.append(best)
        return series, tuple(deleted)

    def _with_all_records(self, name: str, series: Series) -> Series:
        """Return a series with its older records at hand, if there are any."""
        return self.archive.whole(name, series) if any(s.records for s in series.segments) else series

    def _exists(self, key: str) -> bool:
        """Return whether an object is there. One wrong "not found" must not cost the best: a listing has to agree."""
        try:
            self.store.stat(key)
        except ObjectNotFoundError:
            return any(found.key == key for found in self.store.scan(key))
        return True

    def _remembering_exists(self) -> Callable[[str], bool]:
        """Return `_exists` that looks at what is there once: again in each round would give others time to win it.

        What is not there may be there in the next round, under a name that was free for a moment.
        """
        there: set[str] = set()

        def exists(key: str) -> bool:
            if key not in there and self._exists(key):
                there.add(key)
            return key in there

        return exists

    def _read(self) -> tuple[Manifest, Version | Expect]:
        try:
            data, version = self.store.read(MANIFEST_KEY, limit=MAX_MANIFEST_BYTES)
        except ObjectNotFoundError:
            return Manifest(), Expect.ABSENT
        self.signer.verify(data, self.location.url(MANIFEST_KEY))
        return Manifest.parse(data, self.location), version

    def _in_rounds(self, attempt: Callable[[], Manifest]) -> Manifest:
        """Call `attempt` until it wins, fails for good, or the time is up."""
        until = time.monotonic() + self.policy.deadline
        while True:
            if self._wait:
                self._cached = None  # the others did not wait
                self.policy.sleep(random.uniform(0, self._wait))
            try:
                manifest = attempt()
            except (PreconditionFailedError, OutcomeUnknownError) as exc:
                self._wait = min(max(2 * self._wait, self.policy.first_wait), self.policy.longest_wait)
                if time.monotonic() + self._wait >= until:
                    raise
                log.info("Another round within %.1f s: %s", self._wait, exc)
            else:
                self._wait = self._wait / 2 if self._wait > self.policy.first_wait else 0.0
                return manifest

    def _changed(self, change: Callable[[Manifest], Manifest]) -> tuple[Manifest, Version | Expect, Manifest]:
        """Return the present manifest, its version, and the changed one."""
        cached, self._cached = self._cached, None  # whatever happens next, it must be read again
        manifest, version = cached or self._read()
        try:
            return manifest, version, change(manifest)
        except ManifestError:
            if cached is None:
                raise
        manifest, version = self._read()  # a segment that the older one names may have been replaced, and swept
        return manifest, version, change(manifest)

    def _signed(self, manifest: Manifest) -> bytes:
        where = self.location.url(MANIFEST_KEY)
        data = self.signer.sign(manifest.dump(), where)
        if len(data) > MAX_MANIFEST_BYTES:
            raise ManifestError(
                f"{where} would grow to {len(data)} bytes, more than the {MAX_MANIFEST_BYTES} that are ever read. "
                "Nothing was changed. Keep fewer checkpoints, or log less with each."
            )
        return data


def _judge_of(candidate: Checkpoint, terms: Terms, series: Series) -> tuple[str, Mode]:
    """Return how a series is judged once it has `candidate`: one that comes late does not bring back its old metric."""
    latest = series.find("latest")
    late = latest is not None and candidate.created < latest.created
    return (series.monitor, series.mode) if late else (terms.monitor, terms.mode)


def _replaced_by(candidate: Checkpoint, series: Series) -> set[str]:
    """Return the ids of records whose object is gone: `candidate` has its key, and a key is created only while free.

    Two with equal bytes may have one key: an upload whose answer was lost takes such an object for its own.
    """
    return {c.id for c in series.checkpoints if c.key == candidate.key and c.sha256 != candidate.sha256}
