"""The compare-and-swap loop that makes a checkpoint visible, and never lets the best get worse."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ValidationError

from remote_ckpt.checkpoint import MAX_MANIFEST_BYTES, Checkpoint, Manifest, Segment, Series, first_problem
from remote_ckpt.checkpoint.readable import dump_readable
from remote_ckpt.checkpoint.signing import UNSIGNED, Signer
from remote_ckpt.commit.archive import Archive
from remote_ckpt.commit.memory import Memory
from remote_ckpt.commit.presence import Presence
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

T = TypeVar("T")

_MOST_VIEWS = 10
"""Manifests read in a row because what they name is gone; each of them was newer than the one before."""

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
        problem: Why the checkpoint, which is in the bucket, is not shown under its fixed name.
    """

    manifest: Manifest
    series: Series
    is_best: bool
    pruned: tuple[Checkpoint, ...] = ()
    problem: Exception | None = None


@dataclass
class Committer:
    """Reads and changes one run's manifest.

    A change is a pure function from manifest to manifest that does nothing to one that already has it. So every round
    begins by looking for our own write, and a lost answer or another writer's commit leads to the same next step:
    wait, and read again. What a writer has seen, and a later manifest lacks, is put back in the same way, see `memory`.

    How long to wait is remembered from one commit to the next: doubled by each lost round, halved by each commit. A
    writer that forgot it after a success would commit again at once, with a view that is up to date, and win against
    those that wait until they give up (the capture effect of exponential backoff: Bharghavan et al., MACAW, 1994).

    Threads: any, one commit at a time.
    """

    store: ObjectStore
    location: Location
    policy: RetryPolicy = ROUNDS
    signer: Signer = UNSIGNED
    memory: Memory = field(default_factory=Memory)
    _cached: tuple[Manifest, Version | Expect] | None = None
    _loss: str | None = None  # what happened to the manifest that was read last
    _wait: float = 0.0  # seconds; the bound of the next one
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Find the older records in the same store."""
        self.archive = Archive(self.store, self.location)

    def load(self, *, to_write: bool = False) -> Manifest:
        """Return the manifest as it is in the store; an empty one while there is none.

        Args:
            to_write: Whether it will be changed, which a signed one cannot be without the key.

        Raises:
            ManifestError: What is there is not a manifest we can read (or write to).
            StoreError: The store refused; "forbidden" is never taken for "nothing there".
        """
        return self.reading(lambda manifest: manifest, to_write=to_write)

    def reading(self, use: Callable[[Manifest], T], *, to_write: bool = False) -> T:
        """Return what `use` makes of the manifest and its segments; once more if it was no longer the newest.

        Args:
            use: Without side effects.
            to_write: As for `load`.

        Raises: as `load`, and a segment that the newest manifest names cannot be read.
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
        """Return the manifest as this process saw it last; it is read only if it never was.

        Raises: as `load`.
        """
        with self._lock:
            self._cached = self._cached or self._read()
            return self._cached[0]

    def require_room(self, template: str) -> None:
        """Make sure that a checkpoint of this series could be recorded, before it is uploaded.

        Raises:
            ManifestError: The run holds as many series as are ever read.
        """
        manifest = self.recall()
        if template not in manifest.series:
            manifest.with_series(template, Series(monitor="", mode="min"))

    def commit(self, candidate: Checkpoint, terms: Terms, blocks: Sequence[str] = ()) -> Commit:
        """Make `candidate` visible, and the best if it beats the present best.

        The object it names must already be complete in the store. A worse score never replaces a better one, whoever
        else writes. Repeating changes nothing. After any error the manifest holds the old state or the new one, never a
        mixture. A best whose object is not there is marked as missing, and counts for nothing until it is there again.

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
        presence = Presence(self.store)

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
            series, withdrawn = self.looked_at(name, series, added, presence)
            series, gone = series.with_checkpoint(added).pruned(terms.keep_best, terms.keep_last)
            pruned = (*withdrawn, *gone)
            return manifest.with_series(name, series.with_base(candidate.id, blocks))

        manifest = self.change(add, hold={name} if retention else ())
        self.memory.committed(candidate)
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
            view, self._cached = self._cached, None  # whatever happens next, it must be read again
            manifest, version, changed = self._on_a_fresh_view(lambda one: self._applied(change, one), view)
            if changed is manifest:
                self._cached = (manifest, version)
                return manifest
            changed, objects = self.archive.frozen(changed, segments_of(manifest) | written, hold)
            data = self._signed(changed, manifest)
            self.archive.write(objects)
            written.update(segments_of(changed))
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
        """Put back what this writer has seen, if the manifest in the store no longer has it. One read otherwise.

        Raises: as `commit`.
        """
        with self._lock:
            self._cached = None
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
        """Return a series judged by a metric; by another one than before, all its records are asked."""
        if (monitor, mode) == (series.monitor, series.mode):
            return series
        return self.archive.whole(name, series).scored_by(monitor, mode)

    def looked_at(
        self, name: str, series: Series, candidate: Checkpoint | None = None, presence: Presence | None = None
    ) -> tuple[Series, tuple[Checkpoint, ...]]:
        """Return a series as its objects are now, and the records that the user has withdrawn by the fixed name.

        Looks only where it matters: for a best that would stand in `candidate`'s way, under a fixed name, and for what
        is marked as missing.

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
        """Return whether the user has deleted the fixed name, and so said that what it showed is gone.

        The objects behind it must be there: where they are missing too, more was lost than somebody took away.
        """
        if not (series.alias and series.alias_seen and series.checkpoints) or presence.exists(name):
            return False
        behind = [record for which in ("best", "latest") if (record := series.find(which))]
        return bool(behind) and all(presence.is_there(record) for record in behind)

    def _with_all_records(self, name: str, series: Series) -> Series:
        """Return a series with its older records at hand, if there are any."""
        return self.archive.whole(name, series) if any(s.records for s in series.segments) else series

    def _read(self) -> tuple[Manifest, Version | Expect]:
        try:
            data, version = self.store.read(MANIFEST_KEY, limit=MAX_MANIFEST_BYTES)
        except ObjectNotFoundError:
            return Manifest(), Expect.ABSENT
        self.signer.verify(data, self.location.url(MANIFEST_KEY))
        return Manifest.parse(data, self.location), version

    def _mended(self, manifest: Manifest) -> Manifest:
        """Return the manifest, with what this writer has seen put back if it lacks any of it."""
        if manifest is self.memory.seen:
            return manifest
        self._loss = self.memory.loss(manifest, self.archive)
        if self._loss is None:
            self.memory.see(manifest)
            return manifest
        return self.memory.joined(manifest, self.archive, Presence(self.store))

    def _applied(self, change: Callable[[Manifest], Manifest], manifest: Manifest) -> Manifest:
        try:
            return change(self._mended(manifest))
        except ValidationError as exc:
            where = self.location.url(MANIFEST_KEY)
            raise ManifestError(f"{where} would not be readable, so nothing was changed: {first_problem(exc)}") from exc

    def _tell_of_loss(self, mended: Manifest) -> None:
        """Log what happened to the manifest, once it is put right: a store that answered with an old one is no loss."""
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

    def _on_a_fresh_view(
        self, use: Callable[[Manifest], T], view: tuple[Manifest, Version | Expect] | None = None
    ) -> tuple[Manifest, Version | Expect, T]:
        """Return a manifest, its version, and what `use` made of it.

        A segment that a manifest names may have been replaced and swept since it was read. So whoever looks into
        segments does it in here, and looks again when what it held was not the newest manifest.
        """
        manifest, version = view or self._read()
        for _ in range(_MOST_VIEWS):
            try:
                return manifest, version, use(manifest)
            except ManifestError:
                before = version
                manifest, version = self._read()
                if version == before:
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
