"""The compare-and-swap loop on the manifest: makes a checkpoint visible and never lets the best get worse."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ValidationError

from remote_ckpt.errors import (
    CommitConflictError,
    CommitOutcomeUnknownError,
    ManifestError,
    ObjectNotFoundError,
    OutcomeUnknownError,
    PreconditionFailedError,
)
from remote_ckpt.location import MANIFEST_KEY, Location
from remote_ckpt.manifest.memory import Memory
from remote_ckpt.manifest.presence import Presence
from remote_ckpt.manifest.segment_store import SegmentStore
from remote_ckpt.manifest.segments import segments_of
from remote_ckpt.manifest.signing import UNSIGNED, Signer
from remote_ckpt.policy import Mode, is_better
from remote_ckpt.records import MAX_MANIFEST_BYTES, Checkpoint, Manifest, Segment, Series, first_problem
from remote_ckpt.records.readable import dump_readable
from remote_ckpt.records.series_rules import SeriesRules
from remote_ckpt.retry import RetryPolicy
from remote_ckpt.stores.base import Expect, ObjectStore, Version

log = logging.getLogger("remote_ckpt")

T = TypeVar("T")

_MOST_VIEWS = 10
"""Most manifests read in a row because a segment was gone; each has another version than its predecessor."""

ROUNDS = RetryPolicy(deadline=120.0, first_wait=0.05, longest_wait=4.0)
"""GCS takes about one write a second to one name (its documentation), so late rounds wait for seconds."""


@dataclass(frozen=True)
class Commit:
    """The result of a commit.

    Attributes:
        manifest: The manifest after the commit.
        series: The candidate's series in this manifest.
        is_best: Whether the candidate is the best now.
        pruned: Records removed by this commit, by retention or because the user deleted the fixed name. Their objects
            may be deleted.
        problem: The error that kept the checkpoint from being copied to its fixed name; the checkpoint itself is in the
            bucket. None without an error.
    """

    manifest: Manifest
    series: Series
    is_best: bool
    pruned: tuple[Checkpoint, ...] = ()
    problem: Exception | None = None


@dataclass
class Committer:
    """A reader and writer of the manifest of a run.

    A change is a pure function from manifest to manifest. Applied to a manifest that already has the change, the
    function does nothing. So every round first looks for the writer's own earlier write. A lost answer and another
    writer's commit therefore lead to the same next step: wait, and read again. If a manifest lacks something that this
    writer has seen, it is put back in the same way, see `memory`.

    The bound of the wait is kept from one commit to the next: each lost round doubles it, each commit halves it. A
    writer that reset the bound after a success would commit again at once, with an up-to-date manifest, and would win
    against the waiting writers until these give up (the capture effect of exponential backoff: Bharghavan et al.,
    MACAW, 1994).

    Threads: any, one commit at a time.
    """

    store: ObjectStore
    location: Location
    policy: RetryPolicy = ROUNDS
    signer: Signer = UNSIGNED
    memory: Memory = field(default_factory=Memory)
    _cached: tuple[Manifest, Version | Expect] | None = None
    _loss: str | None = None  # what the manifest read last has lost, for the log; None if nothing
    _wait: float = 0.0  # seconds; the upper bound of the next random wait
    # Guards the three fields above, and `memory` while the manifest is read or changed.
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Create the reader of the segments, on the same store."""
        self.archive = SegmentStore(self.store, self.location)

    def load(self, *, to_write: bool = False) -> Manifest:
        """Read the manifest from the store; return an empty manifest while there is none.

        Args:
            to_write: Whether the caller will change the manifest. A signed manifest cannot be changed without the key.

        Raises:
            ManifestError: The object is not a manifest that this version can read (or, with `to_write`, change).
            StoreError: The store refused. "Forbidden" is an error, never an empty manifest.
        """
        return self.reading(lambda manifest: manifest, to_write=to_write)

    def reading(self, use: Callable[[Manifest], T], *, to_write: bool = False) -> T:
        """Return the result of `use`, called with the manifest from the store.

        Args:
            use: A function without side effects. Called again with a newer manifest if it raises ManifestError and
                the manifest has changed meanwhile: its segments may have been replaced.
            to_write: As for `load`.

        Raises: as `load`; and ManifestError, if a segment of the newest manifest cannot be read.
        """

        def look(manifest: Manifest) -> T:
            if to_write:
                self.signer.require_key(manifest.model_extra, self.location.url(MANIFEST_KEY))
            if self.memory.loss(manifest, self.archive) is None:
                self.memory.see(manifest)
            return use(manifest)

        with self._lock:
            return self._on_a_fresh_view(look)[2]

    def recall(self) -> Manifest:
        """Return the manifest last read or written by this committer. Read the store only if none is cached.

        Raises: as `load`.
        """
        with self._lock:
            self._cached = self._cached or self._read()
            return self._cached[0]

    def require_room(self, template: str) -> None:
        """Refuse a new series if the manifest has no room for another series; called before the upload.

        Raises:
            ManifestError: The run already holds the most series that a reader accepts. Or as `load`.
            StoreError: The store refused.
        """
        manifest = self.recall()
        if template not in manifest.series:
            manifest.with_series(template, Series(monitor="", mode="min"))

    def commit(self, candidate: Checkpoint, terms: SeriesRules, blocks: Sequence[str] = ()) -> Commit:
        """Make `candidate` visible, and the best if it beats the present best.

        The object of `candidate` must already be complete in the store. A worse score never replaces a better one, even
        while other writers commit. Repeating changes nothing. After any error the manifest holds the old state or the
        new one, never a mixture. A best whose object is not in the store is marked as missing: until the object is
        there again, this checkpoint is not the best.

        Args:
            candidate: A checkpoint whose object has been uploaded and verified.
            terms: Metric, retention and alias of its series.
            blocks: Digests of the object's blocks, see `stores.Digests`, for the delta of the next checkpoint.

        Returns:
            The new manifest, the removed records, and whether the candidate is the best now.

        Raises:
            CommitConflictError: Other writers won every round until the time budget ran out.
            CommitOutcomeUnknownError: The last answer was lost; the candidate may be visible. Delete nothing.
            ManifestError: The manifest in the store, or a segment that it names, cannot be read. Or the new manifest
                would be too large or not readable; nothing was changed.
            StoreError: The store refused.
        """
        name = candidate.series
        retention = terms.keep_best is not None or terms.keep_last is not None
        pruned: tuple[Checkpoint, ...] = ()
        presence = Presence(self.store)

        def add(manifest: Manifest) -> Manifest:
            nonlocal pruned
            series = manifest.of(name) or Series(monitor=terms.monitor, mode=terms.mode)
            # Committed already: in an earlier round whose answer was lost, or by a process that was killed afterwards.
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
            series, withdrawn = self.looked_at(name, series, added, presence)
            series, gone = series.with_checkpoint(added).pruned(terms.keep_best, terms.keep_last)
            pruned = (*withdrawn, *gone)
            return manifest.with_series(name, series.with_base(candidate.id, blocks))

        manifest = self.change(add, hold={name} if retention else ())
        self.memory.committed(candidate)
        series = manifest.series[name]
        return Commit(manifest, series, series.best == candidate.id, pruned)

    def change(self, change: Callable[[Manifest], Manifest], *, hold: Collection[str] = ()) -> Manifest:
        """Apply `change` to the manifest in the store, and return the new manifest.

        Args:
            change: A function without side effects, called in each round. Returns the very object that was passed when
                there is nothing (more) to do. The returned series may have their whole history loaded: older entries
                are moved to segments again.
            hold: Series whose records all stay in the manifest, see `segments.frozen`.

        Raises: as `commit`.
        """
        written: dict[str, Segment] = {}

        def attempt() -> Manifest:
            view, self._cached = self._cached, None  # after any error the cached manifest may be stale: read again
            manifest, version, changed = self._on_a_fresh_view(lambda one: self._applied(change, one), view)
            if changed is manifest:
                self._cached = (manifest, version)
                return manifest
            changed, objects = self.archive.frozen(changed, segments_of(manifest) | written, hold)
            data = self._signed(changed, manifest)
            # Segments first: a reader of the new manifest must find them. If this round loses, they are orphans, unless
            # the next round needs the same ones (`written`).
            self.archive.write(objects)
            written.update(segments_of(changed))
            # The one conditional write. It fails if another writer has committed since `version` was read.
            self._cached = (changed, self.store.write(MANIFEST_KEY, data, expect=version))
            self._tell_of_loss(changed)
            self.memory.see(changed)
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

    def mend(self) -> None:
        """Read the manifest, and put back anything seen earlier by this writer and lost since.

        Raises: as `commit`.
        """
        with self._lock:
            self._cached = None  # compare with the manifest in the store, not with the cached one
        self.change(lambda manifest: manifest)

    def knows(self, record: Checkpoint) -> bool:
        """Return whether `record` was ever committed, pruned or not.

        Raises: as `load`.
        """

        def is_known(manifest: Manifest) -> bool:
            series = manifest.of(record.series)
            return series is not None and self.archive.knows(record.series, series, record)

        return self.reading(is_known)

    def judged(self, name: str, series: Series, monitor: str, mode: Mode) -> Series:
        """Return a series judged by a metric. If the metric is new, load and rescore all records of the series.

        Raises:
            ManifestError: A segment cannot be read.
            StoreError: The store refused.
        """
        if (monitor, mode) == (series.monitor, series.mode):
            return series
        return self.archive.whole(name, series).scored_by(monitor, mode)

    def looked_at(
        self, name: str, series: Series, candidate: Checkpoint | None = None, presence: Presence | None = None
    ) -> tuple[Series, tuple[Checkpoint, ...]]:
        """Return a series after checking objects in the store, and the records removed because of a deleted fixed name.

        Only three things are checked: a best that `candidate` does not beat, the object under the fixed name, and
        records that are marked as missing.

        Raises: as `commit`.
        """
        presence = presence or Presence(self.store)
        series = presence.looked_for(series)
        if self._is_withdrawn(name, series, presence):
            log.warning("%s was deleted: its checkpoints count for nothing now.", self.location.url(name))
            gone = self._with_all_records(name, series).checkpoints
            series = self._with_all_records(name, series).without({c.id for c in gone})
            return series.model_copy(update={"alias_seen": False}), gone
        while (best := series.find("best")) is not None:
            if candidate is not None and is_better(candidate.score, best.score, series.mode):
                break
            if presence.is_there(best):
                break
            series = self._with_all_records(name, series)
            lost = presence.absent([c for c in series.checkpoints if not c.missing]) | {best.id}
            log.warning(
                "%s is missing: it is no longer the best. Of %s, %d of %d checkpoints are missing now. They count "
                "again when they are there again.",
                *(best.url or self.location.url(best.key), self.location.url(name), len(lost), len(series.checkpoints)),
            )
            series = series.marked(lost, missing=True)
        return series, ()

    def _is_withdrawn(self, name: str, series: Series, presence: Presence) -> bool:
        """Return whether the user has deleted the object under the fixed name, to withdraw the series' checkpoints.

        The objects of best and latest must still be there. If one of them is missing too, this is a loss and not a
        deletion by the user.
        """
        if not (series.alias and series.alias_seen and series.checkpoints) or presence.exists(name):
            return False
        behind = [record for which in ("best", "latest") if (record := series.find(which))]
        return bool(behind) and all(presence.is_there(record) for record in behind)

    def _with_all_records(self, name: str, series: Series) -> Series:
        """Return a series with its older records loaded, if its segments hold any."""
        return self.archive.whole(name, series) if any(s.records for s in series.segments) else series

    def _read(self) -> tuple[Manifest, Version | Expect]:
        try:
            data, version = self.store.read(MANIFEST_KEY, limit=MAX_MANIFEST_BYTES)
        except ObjectNotFoundError:
            # A new run, or the manifest was removed (see `memory`). If another writer creates it first, ours conflicts.
            return Manifest(), Expect.ABSENT
        self.signer.verify(data, self.location.url(MANIFEST_KEY))
        return Manifest.parse(data, self.location), version

    def _mended(self, manifest: Manifest) -> Manifest:
        """Return the manifest, joined with the remembered one if something this writer has seen is lacking."""
        if manifest is self.memory.seen:  # the cached manifest, compared or written by us before
            return manifest
        self._loss = self.memory.loss(manifest, self.archive)
        if self._loss is None:
            self.memory.see(manifest)
            return manifest
        return self.memory.joined(manifest, self.archive, Presence(self.store))

    def _applied(self, change: Callable[[Manifest], Manifest], manifest: Manifest) -> Manifest:
        try:
            return change(self._mended(manifest))
        except ValidationError as exc:  # our own change made it: refuse before anything is written
            where = self.location.url(MANIFEST_KEY)
            raise ManifestError(f"{where} would not be readable, so nothing was changed: {first_problem(exc)}") from exc

    def _tell_of_loss(self, mended: Manifest) -> None:
        """Log a loss in the manifest, after the repaired manifest was written.

        Not earlier: if the store only answered a read with an old manifest, the conditional write fails, and the next
        round finds no loss.
        """
        if self._loss is None:
            return
        records = [record for series in mended.series.values() for record in series.checkpoints]
        log.warning(
            "%s %s. What this writer had seen of it was put back: %d checkpoints at hand, %d of them missing. If you "
            "removed it to start anew, stop the writers first.",
            *(self.location.url(MANIFEST_KEY), self._loss, len(records), sum(record.missing for record in records)),
        )
        self._loss = None

    def _in_rounds(self, attempt: Callable[[], Manifest]) -> Manifest:
        """Call `attempt` until success, time is up, or an error other than a conflict or an unknown outcome occurs.

        Raises:
            PreconditionFailedError: The last round lost against another writer.
            OutcomeUnknownError: The answer to the last write was lost.
        """
        until = time.monotonic() + self.policy.deadline
        while True:
            if self._wait:
                self._cached = None  # other writers may have committed by the end of the wait
                # Random ("full jitter"), so that writers which lost the same round do not meet again in the next.
                self.policy.sleep(random.uniform(0, self._wait))
            try:
                manifest = attempt()
            except (PreconditionFailedError, OutcomeUnknownError) as exc:
                # Both lead to a new read, and `change` finds our write in it if it was applied after all.
                self._wait = min(max(2 * self._wait, self.policy.first_wait), self.policy.longest_wait)
                if time.monotonic() + self._wait >= until:
                    raise
                log.info("Another round within %.1f s: %s", self._wait, exc)
            else:
                self._wait = self._wait / 2 if self._wait > self.policy.first_wait else 0.0
                return manifest

    def _on_a_fresh_view(
        self, use: Callable[[Manifest], T], view: tuple[Manifest, Version | Expect] | None = None
    ) -> tuple[Manifest, Version | Expect, T]:
        """Return a manifest, the version read, and the result of `use` for this manifest.

        A segment named in a manifest may have been replaced and swept after the manifest was read. So code that reads
        segments runs inside `use`; when it raises ManifestError, it is called again if a newer manifest exists.
        """
        manifest, version = view or self._read()
        for _ in range(_MOST_VIEWS):
            try:
                return manifest, version, use(manifest)
            except ManifestError:
                before = version
                manifest, version = self._read()
                if version == before:  # still the newest manifest: the error is real
                    raise
        return manifest, version, use(manifest)

    def _signed(self, manifest: Manifest, before: Manifest) -> bytes:
        where = self.location.url(MANIFEST_KEY)
        data = self.signer.sign(dump_readable(manifest, before, self.location), where)
        if len(data) > MAX_MANIFEST_BYTES:
            raise ManifestError(
                f"{where} would grow to {len(data)} bytes, more than the {MAX_MANIFEST_BYTES} that are ever read. "
                "Nothing was changed. Keep fewer checkpoints, or log less with each."
            )
        return data


def _judge_of(candidate: Checkpoint, terms: SeriesRules, series: Series) -> tuple[str, Mode]:
    """Return metric and mode for a series with `candidate`, as used for the latest checkpoint.

    A candidate captured before the latest checkpoint comes late, and does not bring back an old metric.
    """
    latest = series.find("latest")
    late = latest is not None and candidate.created < latest.created
    return (series.monitor, series.mode) if late else (terms.monitor, terms.mode)


def _replaced_by(candidate: Checkpoint, series: Series) -> set[str]:
    """Return the ids of records whose object is gone because `candidate` now has the same key with other bytes.

    An upload creates an object only under a free key; so the earlier object was deleted. Two records with equal bytes
    may share one key: an upload whose answer was lost takes an object with equal bytes for its own.
    """
    return {c.id for c in series.checkpoints if c.key == candidate.key and c.sha256 != candidate.sha256}
