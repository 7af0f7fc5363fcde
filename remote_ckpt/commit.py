"""The compare-and-swap loop that makes a checkpoint visible, and never lets the best get worse."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from remote_ckpt.checkpoint import MAX_MANIFEST_BYTES, Checkpoint, Manifest, Series
from remote_ckpt.errors import (
    CommitConflictError,
    CommitOutcomeUnknownError,
    ObjectNotFoundError,
    OutcomeUnknownError,
    PreconditionFailedError,
)
from remote_ckpt.location import MANIFEST_KEY, Location
from remote_ckpt.policy import is_better
from remote_ckpt.retry import RetryPolicy, call
from remote_ckpt.signing import UNSIGNED, Signer
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
    read again. Threads: any, one commit at a time.
    """

    store: ObjectStore
    location: Location
    policy: RetryPolicy = ROUNDS
    signer: Signer = UNSIGNED
    _cached: tuple[Manifest, Version | Expect] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

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

    def commit(self, candidate: Checkpoint, terms: Terms) -> Commit:
        """Make `candidate` visible, and the best if it beats the present best.

        The object it names must already be complete in the store. A worse score never replaces a better one, whoever
        else writes. Repeating changes nothing. After any error the manifest holds the old state or the new one, never a
        mixture. A best whose object the user has deleted counts for nothing.

        Args:
            candidate: A checkpoint whose object has been uploaded and verified.
            terms: How its series is kept.

        Returns:
            What was committed, and whether the candidate is the best now.

        Raises:
            CommitConflictError: Other writers won every round until the time budget ran out.
            CommitOutcomeUnknownError: The last answer was lost; the candidate may be visible. Delete nothing.
            ManifestError: The manifest in the store cannot be read.
        """
        pruned: tuple[Checkpoint, ...] = ()

        def add(manifest: Manifest) -> Manifest:
            nonlocal pruned
            series = manifest.of(candidate.series) or Series(monitor=terms.monitor, mode=terms.mode)
            if series.knows(candidate.id):
                pruned = ()
                return manifest
            series = series.model_copy(update={"alias": terms.alias}).scored_by(terms.monitor, terms.mode)
            before = series.checkpoints
            series = self.without_deleted(series, candidate).with_checkpoint(candidate)
            series, _ = series.pruned(terms.keep_best, terms.keep_last)
            kept = {record.id for record in series.checkpoints}
            pruned = tuple(record for record in (*before, candidate) if record.id not in kept)
            return manifest.with_series(candidate.series, series)

        manifest = self.change(add)
        series = manifest.series[candidate.series]
        return Commit(manifest, series, series.best == candidate.id, pruned)

    def change(self, change: Callable[[Manifest], Manifest]) -> Manifest:
        """Apply `change` to the manifest in the store; return the manifest that holds it.

        Args:
            change: Without side effects, as it may be called for each round; returns the very object it was given
                when there is nothing (more) to do.

        Raises: as `commit`.
        """

        def attempt() -> Manifest:
            manifest, version = self._cached or self._read()
            self._cached = None  # whatever happens next, it must be read again
            changed = change(manifest)
            if changed is manifest:
                self._cached = (manifest, version)
                return manifest
            written = self.store.write(MANIFEST_KEY, self._signed(changed), expect=version)
            self._cached = (changed, written)
            return changed

        try:
            with self._lock:
                return call(attempt, self.policy, retry_on=_worth_another_round)
        except PreconditionFailedError as exc:
            raise CommitConflictError(
                f"Other writers changed {self.location.url(MANIFEST_KEY)} in every round for "
                f"{self.policy.deadline:.0f} s. Nothing was lost; it is tried again with the next checkpoint."
            ) from exc
        except OutcomeUnknownError as exc:
            raise CommitOutcomeUnknownError(
                f"The store did not answer whether {self.location.url(MANIFEST_KEY)} was written: {exc}"
            ) from exc

    def without_deleted(self, series: Series, candidate: Checkpoint | None = None) -> Series:
        """Return `series` without a best that the user has deleted.

        Looks only where it matters: when the best would stand in `candidate`'s way, or under a fixed name.
        """
        if series.alias and series.alias_seen and series.checkpoints and not self._exists(series_name(series)):
            log.warning(
                "%s was deleted: its checkpoints count for nothing now.", self.location.url(series_name(series))
            )
            return series.without({c.id for c in series.checkpoints}).model_copy(update={"alias_seen": False})
        while (best := series.find("best")) is not None:
            if candidate is not None and is_better(candidate.score, best.score, series.mode):
                break
            if self._exists(best.key):
                break
            log.warning("%s was deleted: it is no longer the best.", best.url or self.location.url(best.key))
            series = series.without({best.id})
        return series

    def _exists(self, key: str) -> bool:
        try:
            self.store.stat(key)
        except ObjectNotFoundError:
            return False
        return True

    def _read(self) -> tuple[Manifest, Version | Expect]:
        try:
            data, version = self.store.read(MANIFEST_KEY, limit=MAX_MANIFEST_BYTES)
        except ObjectNotFoundError:
            return Manifest(), Expect.ABSENT
        self.signer.verify(data, self.location.url(MANIFEST_KEY))
        return Manifest.parse(data, self.location), version

    def _signed(self, manifest: Manifest) -> bytes:
        return self.signer.sign(manifest.dump(), self.location.url(MANIFEST_KEY))


def series_name(series: Series) -> str:
    """Return the template of a series that holds checkpoints; each record knows it."""
    return series.checkpoints[0].series


def _worth_another_round(error: BaseException) -> bool:
    return isinstance(error, PreconditionFailedError | OutcomeUnknownError)
