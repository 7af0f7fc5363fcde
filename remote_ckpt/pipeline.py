"""The two background threads of a writer: snapshots are sealed on the local disk, sealed checkpoints are published.

::

    training thread ──submit──► [one waiting] ──sealer──► [sealed entries] ──publisher──► bucket

Sealing goes at the disk's speed and publishing at the network's, so a slow network never keeps a snapshot in memory.
At most one snapshot waits while another is written. What happens to a third depends on the writer: with
`save_best_only` it takes the waiting one's place; otherwise the training thread waits for the disk.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from remote_ckpt.checkpoint import Checkpoint
from remote_ckpt.commit import Commit
from remote_ckpt.errors import CorruptCheckpointError, DrainError, RemoteCkptError, SpoolFullError
from remote_ckpt.policy import Mode, is_better
from remote_ckpt.publish import Publisher
from remote_ckpt.spool import Entry, Spool, Terms
from remote_ckpt.stats import Stats
from remote_ckpt.stores.base import Digests

log = logging.getLogger("remote_ckpt")

RETRY_AFTER = 60.0
"""Seconds after a failure until the publisher tries by itself; a new checkpoint or a flush makes it try at once."""


class Snapshot(Protocol):
    """What a model was at one instant, not yet written."""

    @property
    def nbytes(self) -> int:
        """About how large the file will be, in bytes."""

    @property
    def written(self) -> int:
        """How many of these bytes the spool's disk holds already."""

    def write(self, path: Path) -> None:
        """Write the file; called once, from the sealer."""

    def discard(self) -> None:
        """Release what is held, instead of writing it or after; may be repeated."""


@dataclass(frozen=True)
class Job:
    """A captured checkpoint on its way to the disk.

    Attributes:
        id: The checkpoint's.
        suffix: The file's.
        score: The monitored value.
        snapshot: The model.
        complete: Makes the record from the file's digests.
        captured: `time.monotonic()` of the capture, in seconds.
    """

    id: str
    suffix: str
    score: float | None
    snapshot: Snapshot
    complete: Callable[[Digests], tuple[Checkpoint, Terms]]
    captured: float


@dataclass
class Pipeline:
    """Two threads and what waits between them. `submit`, `flush` and `stop` may be called from any thread.

    One checkpoint may be urgent: no other takes its place, and no other is begun to be uploaded before it is.

    Attributes:
        best_durable: Score of the best checkpoint in the bucket, as far as this process knows.
        failure: Why the last attempt to publish failed; None after a success.
        lost: Why a checkpoint was last lost for good: never sealed, dropped for room, or vanished from the spool.
    """

    spool: Spool
    publisher: Publisher
    mode: Mode
    supersede: bool
    stats: Stats
    on_published: Callable[[Checkpoint, bool], None]
    best_durable: float | None = None
    failure: Exception | None = None
    lost: Exception | None = None
    _jobs: deque[Job] = field(default_factory=deque)
    _sealing: Job | None = None
    _entries: deque[Entry] = field(default_factory=deque)
    _publishing: Entry | None = None
    _urgent: str | None = None
    _hopes: dict[str, float | None] = field(default_factory=dict)
    _captured: dict[str, float] = field(default_factory=dict)
    _resting_until: float = 0.0
    _kind_lost: type[Exception] | None = None
    _stopping: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def best(self) -> float | None:
        """The score to beat: the best in the bucket or on its way there. What failed is not on its way."""
        best = self.best_durable
        with self._changed:
            for score in self._hopes.values():
                best = score if is_better(score, best, self.mode) else best
        return best

    @property
    def pending(self) -> int:
        """How many checkpoints were captured and are not yet in the bucket."""
        with self._changed:
            return self._pending()

    def _pending(self) -> int:
        return len(self._jobs) + bool(self._sealing) + len(self._entries) + bool(self._publishing)

    def submit(self, capture: Callable[[], Job], *, urgent: bool = False) -> None:
        """Capture a model and queue it. Waits only where a snapshot more would break the bound on memory."""
        self._start()
        with self._changed:
            while self._jobs and (urgent or not self.supersede or self._jobs[0].id == self._urgent):
                self._changed.wait()
        job = capture()
        with self._changed:
            while self._jobs:  # only ever one
                older = self._jobs.popleft()
                self._give_up(older.id)
                older.snapshot.discard()
                self.stats.superseded += 1
            self._jobs.append(job)
            self._urgent = job.id if urgent else self._urgent
            self._hopes[job.id] = job.score
            self._captured[job.id] = job.captured
            self._changed.notify_all()

    def adopt(self, entries: list[Entry]) -> None:
        """Queue what an earlier process has sealed."""
        if not entries:
            return
        self._start()
        with self._changed:
            self._entries.extend(entries)
            self._hopes.update({entry.record.id: entry.record.score for entry in entries})
            self._changed.notify_all()

    def flush(self, timeout: float) -> None:
        """Wait until everything submitted so far is in the bucket.

        Raises:
            DrainError: The time ran out, or publishing failed; what was sealed waits in the spool.
        """
        deadline = time.monotonic() + timeout
        tell_at = time.monotonic() + 5.0
        with self._changed:
            failed_before = self.stats.failures
            self._resting_until = 0.0
            self._changed.notify_all()
            while self._pending():
                gave_up = self.stats.failures > failed_before and self._rests()
                left = deadline - time.monotonic()
                if gave_up or left <= 0:
                    raise self._not_drained(timeout)
                self._changed.wait(min(left, 1.0))
                if time.monotonic() >= tell_at:
                    tell_at = time.monotonic() + 30.0
                    log.warning("Waiting for %s to reach %s.", _count(self._pending()), self.spool.location.name)

    def _rests(self) -> bool:
        """Return whether nothing is under way, nor will be before the rest after a failure is over."""
        busy = self._jobs or self._sealing or self._publishing
        return not busy and self._resting_until > time.monotonic()

    def stop(self) -> None:
        """Let the threads end once their present work is done; does not wait for queued work."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=0.1 if self._pending() else 10.0)

    def _start(self) -> None:
        if self._threads:
            return
        for target, name in ((self._seal_all, "sealer"), (self._publish_all, "publisher")):
            # Daemons: the interpreter must not hang on a dead network; `exits` drains before it ends.
            thread = threading.Thread(target=target, name=f"remote_ckpt-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    # Sealer thread

    def _seal_all(self) -> None:
        while True:
            with self._changed:
                while not self._jobs:
                    if self._stopping:
                        return
                    self._changed.wait()
                job = self._sealing = self._jobs.popleft()
                self._changed.notify_all()
            self._seal(job)
            del job  # the snapshot's memory
            with self._changed:
                self._sealing = None
                self._changed.notify_all()

    def _seal(self, job: Job) -> None:
        try:
            self._make_room(job.snapshot.nbytes, job.snapshot.written)
            entry = self.spool.seal(job.id, job.suffix, job.snapshot.write, job.complete, blocks=True)
        except Exception as exc:  # noqa: BLE001 - a thread must not die silently: told, counted, training goes on
            job.snapshot.discard()
            with self._changed:
                self._give_up(job.id)
                self._lose(exc, "A checkpoint could not be written to the local disk and is lost")
            return
        self.stats.bytes_written += entry.record.size
        with self._changed:
            if self.supersede:
                self._supersede(entry)
            self._entries.append(entry)
            self._resting_until = 0.0
            self._sealing = None
            self._changed.notify_all()

    def _supersede(self, newer: Entry) -> None:
        for entry in [e for e in self._entries if e.record.series == newer.record.series]:
            better = is_better(newer.record.score, entry.record.score, self.mode)
            if better and entry.record.id != self._urgent:
                self._entries.remove(entry)
                self._give_up(entry.record.id)
                self.stats.superseded += 1
                entry.drop()

    def _make_room(self, needed: int, there: int) -> None:
        """Drop the oldest sealed checkpoints that wait, except the best of them, until `needed` bytes fit.

        Args:
            needed: Bytes of the next checkpoint.
            there: How many of them the spool holds, and has counted, already.
        """
        while (room := self.spool.room() + there) < needed:
            with self._changed:
                victim = self._victim()
                if victim is None:
                    raise SpoolFullError(
                        f"The spool {self.spool.folder} has room for {max(room, 0)} more bytes (spool_limit is "
                        f"{self.spool.limit}, and half the free disk is left alone), and a checkpoint needs {needed}."
                    )
                self._entries.remove(victim)
                self._give_up(victim.record.id)
                self.stats.dropped += 1
                victim.drop()
                self.lost = SpoolFullError(
                    f"The spool is full: the checkpoint of epoch {victim.record.epoch + 1} "
                    f"({self.spool.location.url(victim.record.key)}) was dropped before it was uploaded. "
                    "Raise spool_limit, or see why uploads are slow."
                )
            log.warning("%s", self.lost)

    def _victim(self) -> Entry | None:
        """Return the oldest that waits, but no urgent one, nor the best of all here, which may be under way."""
        best: Entry | None = None
        for entry in (*((self._publishing,) if self._publishing else ()), *self._entries):
            if is_better(entry.record.score, best.record.score if best else None, self.mode):
                best = entry
        return next((e for e in self._entries if e is not best and e.record.id != self._urgent), None)

    # Publisher thread

    def _publish_all(self) -> None:
        while True:
            with self._changed:
                while (entry := self._next()) is None or self._resting_until > time.monotonic():
                    if self._stopping:
                        return
                    rest = self._resting_until - time.monotonic()
                    self._changed.wait(rest if self._entries and rest > 0 else None)
                self._entries.remove(entry)
                self._publishing = entry
            begun = time.monotonic()
            try:
                commit = self.publisher.publish(entry, self.stats.transfer)
            except Exception as exc:  # noqa: BLE001 - as in _seal; the entry stays in the spool
                self._not_published(entry, exc)
            else:
                self.stats.publish_seconds.append(time.monotonic() - begun)
                self._published(entry, commit)

    def _next(self) -> Entry | None:
        """Return what is to be uploaded next; None while there is nothing, or while the urgent one is being written."""
        if self._urgent is None:
            return self._entries[0] if self._entries else None
        return next((entry for entry in self._entries if entry.record.id == self._urgent), None)

    def _not_published(self, entry: Entry, exc: Exception) -> None:
        with self._changed:
            self._publishing = None
            if not entry.path.exists():  # trying again would hold up all that wait behind it
                self._give_up(entry.record.id)
                self._lose(exc, f"{entry.path} has vanished from the spool before it was uploaded, and is lost")
                return
            if isinstance(exc, CorruptCheckpointError):  # nor will it ever be again what was sealed
                self._give_up(entry.record.id)
                entry.drop()
                self._lose(
                    exc, f"The checkpoint of epoch {entry.record.epoch + 1} was damaged on the disk, and is lost"
                )
                return
            self._entries.appendleft(entry)
            self._hopes.pop(entry.record.id, None)
            self._resting_until = time.monotonic() + RETRY_AFTER
            news, self.failure = type(exc) is not type(self.failure), exc
            what = f"{_count(self._pending())} not in the bucket yet; the spool keeps what was written"
            self._failed(exc, what, tell=news)

    def _published(self, entry: Entry, commit: Commit) -> None:
        best = commit.series.find("best")
        with self._changed:
            self.best_durable = best.score if best else None
            self._hopes.pop(entry.record.id, None)
            self._urgent = None if entry.record.id == self._urgent else self._urgent
            captured = self._captured.pop(entry.record.id, None)
            if captured is not None:
                self.stats.durable_seconds.append(time.monotonic() - captured)
            if self.failure is not None:
                log.warning("Uploads to %s work again.", self.spool.location.name)
            self.failure = None
        try:
            self.on_published(commit.series.find(entry.record.id) or entry.record, commit.is_best)
        except Exception:
            log.exception("Telling of a finished upload failed")
        with self._changed:  # last, so that flush returns after the message
            self._publishing = None
            self._changed.notify_all()

    # Both

    def _give_up(self, checkpoint_id: str) -> None:
        self._urgent = None if checkpoint_id == self._urgent else self._urgent
        self._hopes.pop(checkpoint_id, None)
        self._captured.pop(checkpoint_id, None)

    def _lose(self, exc: Exception, what: str) -> None:
        news, self._kind_lost, self.lost = type(exc) is not self._kind_lost, type(exc), exc
        self._failed(exc, what, tell=news)

    def _failed(self, exc: Exception, what: str, *, tell: bool) -> None:
        """Count a failure; `tell` once for each kind in a row: their texts differ by keys and times alone."""
        self.stats.failures += 1
        self._changed.notify_all()
        known = isinstance(exc, RemoteCkptError | OSError)
        if tell:
            log.warning("%s. Training goes on. %s", what, exc, exc_info=None if known else exc)

    def _not_drained(self, timeout: float) -> DrainError:
        name, why = self.spool.location.name, self.failure
        waiting = [entry for entry in (self._publishing, *self._entries) if entry]
        unwritten = len(self._jobs) + bool(self._sealing)
        reason = f"because {type(why).__name__}: {why}" if why else f"within {timeout:.0f} s"
        text = f"{_count(self._pending())} did not reach {name} {reason}"
        if waiting:
            text += (
                f"\n  {_count(len(waiting))} wait{'s' if len(waiting) == 1 else ''} in {self.spool.folder}: on this "
                f"machine, `remote-ckpt recover {name}` or the next training with this filepath uploads what is there."
            )
        if unwritten:
            text += f"\n  {_count(unwritten)} not even written to the local disk yet."
        error = DrainError(text)
        error.__cause__ = why
        return error


def _count(number: int) -> str:
    return f"{number} checkpoint{'' if number == 1 else 's'}"
