"""An auditor watches a run from outside, by the bucket alone, and notes what must never be seen.

It knows nothing of writers, spools or retries, so it judges any of them: one or many, with faults or without, in this
process or in others. What it holds a run to:

- **Whole**: whatever the manifest names is there, with the recorded size and sha256; the manifest can be read.
- **Never worse**: the best is the best of all that was ever committed, the latest the one captured last, and neither
  goes back between two looks.
- **Kept**: what was committed stays in the history; what a writer was told is committed is there.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field

from remote_ckpt.checkpoint import Checkpoint, Series
from remote_ckpt.commit import Committer
from remote_ckpt.errors import InvalidRequestError, ManifestError, ObjectNotFoundError
from remote_ckpt.location import Location
from remote_ckpt.policy import is_better
from remote_ckpt.stores.base import ObjectStore


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
    _confirmed: dict[str, Checkpoint] = field(default_factory=dict)
    _best: dict[str, float | None] = field(default_factory=dict)
    _revision: int = 0
    _intact: set[tuple[str, str, str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def confirm(self, record: Checkpoint) -> None:
        """Take note that a writer was told that `record` is in the bucket: from now on it must be."""
        with self._lock:
            self._confirmed[record.id] = record

    def look(self) -> None:
        """Compare the bucket with what must hold and with what earlier looks saw.

        Raises:
            StoreError: The store could not be asked; the look counts for nothing.
        """
        with self._lock:
            self.looks += 1
            committer = Committer(self.store, self.location)
            try:
                manifest = committer.load()
                series = {name: committer.archive.whole(name, one) for name, one in manifest.series.items()}
            except ManifestError as exc:
                self._note(f"the manifest cannot be read: {exc}")
                return
            if manifest.revision < self._revision:
                self._note(f"revision {manifest.revision} follows {self._revision}")
            self._revision = manifest.revision
            for name, one in series.items():
                self._check_history(name, one)
                self._check_best(name, one)
                self._check_objects(name, one)
            known = {entry.id for one in series.values() for entry in one.history}
            for lost in self._confirmed.keys() - known:
                self._note(f"{lost} was confirmed and is not in the manifest")

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
        best = series.find("best")
        score = best.score if best else None
        for entry in series.history:
            if is_better(entry.own_score, score, series.mode):
                self._note(f"the best of {name} is {score}, though {entry.id} with {entry.score} was committed")
                break
        if is_better(self._best.get(name), score, series.mode):
            self._note(f"the best of {name} went from {self._best[name]} to {score}")
        latest, newest = series.find("latest"), max((entry.created for entry in series.history), default=None)
        if newest is not None and (latest is None or latest.created != newest):
            self._note(f"the latest of {name} is not the one captured last")
        self._best[name] = score

    def _check_objects(self, name: str, series: Series) -> None:
        for record in series.checkpoints:
            found = self._verified_digest(record)
            if found != record.sha256 and self._is_named_still(name, record):
                self._note(f"{record.key} is named, and what is there has the digest {found}, not {record.sha256}")

    def _verified_digest(self, record: Checkpoint) -> str:
        """Return the digest of what is under a record's key; each version of an object is read once."""
        try:
            seen = (record.key, self.store.stat(record.key).version, record.sha256)
        except ObjectNotFoundError:
            return "of nothing"
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
            return "of nothing"
        except InvalidRequestError:
            return f"of more than {size} bytes"
        return hashlib.sha256(data).hexdigest()

    def _note(self, violation: str) -> None:
        self.violations.append(f"look {self.looks}: {violation}")
