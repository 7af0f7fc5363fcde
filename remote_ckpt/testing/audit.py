"""An auditor watches a run from outside, by the bucket alone, and notes what must never be seen.

It knows nothing of writers, spools or retries, so it judges any of them: one or many, with faults or without, in this
process or in others. What it holds a run to:

- **Whole**: whatever the manifest names is there, with the recorded size and sha256; the manifest can be read.
- **Never worse**: the best is the best of all that was ever committed, the latest the one captured last, and neither
  goes back between two looks.
- **Kept**: what was committed stays in the history; what a writer was told is committed is there.

Whoever tampers with the bucket behind the writers' backs (removes the manifest, puts an older one back, takes objects
away or brings them back) must report it with `tampered`. What follows from the tampering alone is then no violation:
the revision may go back, and records and objects may be gone. It ends with the second commit of a writer that lives:
one commit may have been under way, the next one saw what had happened. From then on what this writer had confirmed is
back, as far as its object is there; the best is one whose object is there; and a record whose object is missing is
marked, and not marked longer than it is missing.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass, field

from remote_ckpt.errors import InvalidRequestError, ManifestError, ObjectNotFoundError
from remote_ckpt.location import MANIFEST_KEY, Location
from remote_ckpt.manifest import Committer
from remote_ckpt.policy import best_of, is_better
from remote_ckpt.records import Checkpoint, HistoryPoint, Series
from remote_ckpt.stores.base import ObjectStore, Version

_OF_NOTHING = "of nothing"
_NOTICED = 2  # commits of a writer after a tampering: the first may have been under way


@dataclass
class Auditor:
    """Looks at one run again and again. Threads: any, one look at a time.

    Attributes:
        store: The run's store, seen directly, not through whatever makes it fail.
        location: The run.
        keeps_all: Whether no rule of retention is in force, so that no record may ever go.
        violations: What was seen that must not be, in the order of the looks.
        looks: How many there were.
        committed: Scores by checkpoint id by series, of all that was ever committed, as of the last look.
    """

    store: ObjectStore
    location: Location
    keeps_all: bool = False
    violations: list[str] = field(default_factory=list)
    looks: int = 0
    committed: dict[str, dict[str, float | None]] = field(default_factory=dict)
    _confirmed: dict[str, tuple[Checkpoint, str]] = field(default_factory=dict)
    _best: dict[str, Checkpoint | None] = field(default_factory=dict)
    _revision: int = 0
    _last: tuple[Version, int, dict[str, Series]] | None = None
    _intact: set[tuple[str, str, str]] = field(default_factory=set)
    _was_tampered: bool = False
    _commits_since: Counter[str] = field(default_factory=Counter)  # by writer, since the last tampering
    _dead: set[str] = field(default_factory=set)
    _taken: set[str] = field(default_factory=set)  # keys whose objects went by tampering
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def confirm(self, record: Checkpoint, writer: str = "") -> None:
        """Take note that `writer`, which lives, was told that `record` is in the bucket: from now on it must be."""
        with self._lock:
            self._confirmed[record.id] = record, writer
            self._commits_since[writer] += 1

    def tampered(self) -> None:
        """Take note that somebody has changed the bucket from outside; what lives has to notice, see the module.

        What dead writers had confirmed is nobody's to bring back.
        """
        with self._lock:
            self._was_tampered = True
            self._commits_since.clear()
            self._revision = 0
            self.committed.clear()
            self._best.clear()
            self._forget(self._dead)

    def died(self, writer: str) -> None:
        """Take note that a writer ended, and with it what it remembers, noticed or not."""
        with self._lock:
            self._dead.add(writer)
            if self._was_tampered and not self._has_noticed(writer):
                self._forget({writer})

    def look(self) -> None:
        """Compare the bucket with what must hold and with what earlier looks saw.

        Raises:
            StoreError: The store could not be asked; the look counts for nothing.
        """
        with self._lock:
            self.looks += 1
            try:
                revision, series = self._read()
            except ManifestError as exc:
                if not self._is_excused():
                    self._note(f"the manifest cannot be read: {exc}")
                return
            if revision < self._revision:
                self._note(f"revision {revision} follows {self._revision}")
            self._revision = revision
            for name, one in series.items():
                self._check_history(name, one)
                self._check_best(name, one)
                self._check_latest(name, one)
                self._check_objects(name, one)
            self._check_confirmed(series)

    def look_at_rest(self) -> None:
        """Look when no writer is at work: then also each fixed name shows what it must, and nothing else is there."""
        self.look()
        with self._lock:
            committer = Committer(self.store, self.location)
            manifest = committer.load()
            for name, series in manifest.series.items():
                shown = series.shown
                if shown is not None and self._digest(name, shown.size) != shown.sha256:
                    self._note(f"{name} does not show the {series.alias}")

    def unnamed(self) -> list[str]:
        """Return the checkpoints' keys that the manifest does not name: what was replaced and could not be deleted."""
        committer = Committer(self.store, self.location)
        named = committer.archive.keys(committer.load())
        return sorted(found.key for found in self.store.scan() if found.key not in named and found.key.endswith(".h5"))

    def _read(self) -> tuple[int, dict[str, Series]]:
        """Return the revision, and the series with all their past; a version that was read before is remembered."""
        try:
            version = self.store.stat(MANIFEST_KEY).version
        except ObjectNotFoundError:
            return 0, {}
        if self._last is None or self._last[0] != version:
            committer = Committer(self.store, self.location)
            manifest = committer.load()
            series = {name: committer.archive.whole(name, one) for name, one in manifest.series.items()}
            self._last = version, manifest.revision, series
        return self._last[1:]

    def _check_history(self, name: str, series: Series) -> None:
        now = {entry.id: entry.score for entry in series.history}
        for gone in self.committed.get(name, {}).keys() - now.keys():
            self._note(f"{gone} was committed to {name} and is no longer in its history")
        if len(now) != len(series.history):
            self._note(f"{name} holds a checkpoint twice")
        if self.keeps_all and len(series.checkpoints) != len(series.history):
            self._note(
                f"{name} has {len(series.history)} commits and {len(series.checkpoints)} records, with no pruning"
            )
        self.committed[name] = now

    def _check_best(self, name: str, series: Series) -> None:
        """Compare the best with the records that count, and all records with the scores of those that were pruned.

        What is missing counts for nothing, but is not forgotten: what it had outdone does not come back in its place.
        """
        held = {record.id: record for record in series.checkpoints}
        best, top = series.find("best"), held.get(best_of(series.checkpoints, series.mode) or "")
        score = best.score if best else None

        def stands_out(one: Checkpoint | HistoryPoint) -> bool:
            record = held.get(one.id)
            own = one.own_score if isinstance(one, HistoryPoint) else one.score
            if record is None:
                return is_better(own, top.score if top else None, series.mode)
            return not is_marked_missing(record) and is_better(own, score, series.mode)

        above = next(filter(stands_out, series.history), None)
        if above is not None:
            self._note(f"the best of {name} is {score}, though {above.id} with {above.score} was committed")
        before = self._best.get(name)
        if before is not None and stands_out(before):
            self._note(f"the best of {name} went from {before.score} to {score}")
        self._best[name] = best

    def _check_latest(self, name: str, series: Series) -> None:
        """Likewise."""
        times = [record.created for record in series.checkpoints if not is_marked_missing(record)]
        latest, last = series.find("latest"), max((record.created for record in series.checkpoints), default=None)
        if (latest.created if latest else None) != max(times, default=None) or any(
            last is None or entry.created > last for entry in series.history
        ):
            self._note(f"the latest of {name} is not the one captured last")

    def _check_objects(self, name: str, series: Series) -> None:
        for record in series.checkpoints:
            found = self._verified_digest(record)
            if found == record.sha256:
                self._taken.discard(record.key)
                if is_marked_missing(record) and not self._is_excused():
                    self._note(f"{record.key} is marked missing, and is there")
            elif not self._was_taken(series, record, found) and self._is_named_still(name, record):
                self._note(f"{record.key} is named, and what is there has the digest {found}, not {record.sha256}")

    def _check_confirmed(self, series: dict[str, Series]) -> None:
        known = {entry.id for one in series.values() for entry in one.history}
        for record, writer in self._confirmed.values():
            if self._was_tampered and not (self._has_noticed(writer) and self._is_whole(record)):
                continue
            one = series.get(record.series)
            best = one.find("best") if one else None
            if record.id not in known:
                self._note(f"{record.id} was confirmed and is not in the manifest")
            elif one and is_better(record.score, best.score if best else None, one.mode) and self._is_whole(record):
                self._note(f"{record.id} with {record.score} was confirmed and is there, and is not the best")

    def _is_whole(self, record: Checkpoint) -> bool:
        return self._verified_digest(record) == record.sha256

    def _was_taken(self, series: Series, record: Checkpoint, found: str) -> bool:
        """Return whether an object is gone by tampering, and its record does not pass for one to load."""
        if not self._was_tampered or is_marked_missing(record) or found != _OF_NOTHING:
            return self._was_tampered and is_marked_missing(record)
        if self._is_excused():
            self._taken.add(record.key)
            return True
        return record.key in self._taken and record.id not in (series.best, series.latest)

    def _is_excused(self) -> bool:
        """Return whether there was a tampering that no writer had to notice yet."""
        return self._was_tampered and not any(map(self._has_noticed, self._commits_since))

    def _has_noticed(self, writer: str) -> bool:
        return self._commits_since[writer] >= _NOTICED

    def _forget(self, writers: set[str]) -> None:
        self._confirmed = {name: pair for name, pair in self._confirmed.items() if pair[1] not in writers}

    def _verified_digest(self, record: Checkpoint) -> str:
        """Return the digest of what is under a record's key; each version of an object is read once."""
        try:
            seen = (record.key, self.store.stat(record.key).version, record.sha256)
        except ObjectNotFoundError:
            return _OF_NOTHING
        if seen in self._intact:
            return record.sha256
        found = self._digest(record.key, record.size)
        if found == record.sha256:
            self._intact.add(seen)
        return found

    def _is_named_still(self, name: str, record: Checkpoint) -> bool:
        """A writer may have pruned the record since the manifest was read."""
        committer = Committer(self.store, self.location)
        series = committer.load().of(name)
        return series is not None and committer.archive.whole(name, series).find(record.id) is not None

    def _digest(self, key: str, size: int) -> str:
        try:
            data, _ = self.store.read(key, limit=size)
        except ObjectNotFoundError:
            return _OF_NOTHING
        except InvalidRequestError:
            return f"of more than {size} bytes"
        return hashlib.sha256(data).hexdigest()

    def _note(self, violation: str) -> None:
        self.violations.append(f"look {self.looks}: {violation}")


def is_marked_missing(record: Checkpoint) -> bool:
    """Return whether a record's object was found missing, so that the record counts for nothing meanwhile."""
    return bool(getattr(record, "missing", False))
