"""The two background threads of a writer: the sealer writes snapshots to the local disk, the publisher uploads them.

::

    training thread ──submit──► [one waiting] ──sealer──► [sealed entries] ──publisher──► bucket

Sealing depends on the disk's speed, publishing on the network's. So a slow network never keeps a snapshot in memory.
At most one snapshot waits while another is written. For a third save there are two cases. With `save_best_only` and a
better score, the new snapshot supersedes the waiting one. Otherwise the training thread waits for the disk.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from remote_ckpt.errors import (
    CorruptCheckpointError,
    DrainError,
    RemoteCkptError,
    SpoolFullError,
    WriterStateError,
)
from remote_ckpt.manifest import Commit
from remote_ckpt.policy import is_better
from remote_ckpt.records import Checkpoint
from remote_ckpt.records.series_rules import SeriesRules
from remote_ckpt.saving.failure_scope import Blame, blame
from remote_ckpt.saving.leftovers import Leftovers, count
from remote_ckpt.saving.publisher import Publisher
from remote_ckpt.saving.spool import Spool, SpoolEntry
from remote_ckpt.saving.spool_owners import BEAT
from remote_ckpt.saving.stats import Stats
from remote_ckpt.saving.supersession import Yardstick, best_of_each
from remote_ckpt.saving.upload_order import Turns
from remote_ckpt.stores.base import Digests
from remote_ckpt.threads import keep_at

log = logging.getLogger("remote_ckpt")


class WritableSnapshot(Protocol):
    """A model's state at an instant, not yet written."""

    @property
    def nbytes(self) -> int:
        """The approximate size of the future file, in bytes."""

    @property
    def written(self) -> int:
        """How many of these bytes are on the spool's disk already."""

    def write(self, path: Path) -> None:
        """Write the file. Called once, on the sealer thread."""

    def discard(self) -> None:
        """Release memory and files, instead of `write` or after. Repeating is harmless."""


@dataclass(frozen=True)
class CapturedCheckpoint:
    """A captured checkpoint, not yet sealed.

    Attributes:
        id: The checkpoint's id.
        suffix: The file's suffix.
        score: The monitored value.
        snapshot: The model's state.
        complete: Makes the record and the terms from the file's digests.
        captured: `time.monotonic()` of the capture, in seconds.
    """

    id: str
    suffix: str
    score: float | None
    snapshot: WritableSnapshot
    complete: Callable[[Digests], tuple[Checkpoint, SeriesRules]]
    captured: float


@dataclass
class Pipeline:
    """Two threads and their queues. `submit`, `flush` and `stop` may be called from any thread.

    A checkpoint may be urgent: no other supersedes it, and until it is uploaded, no other upload begins.

    If the store refuses a checkpoint for good (`failure_scope` decides), the others go on. The refused one stays in the
    spool, and this pipeline does not try it again. When the threads have ended and released the spool, any process may
    recover the checkpoints there.

    Attributes:
        best_durable: Score of the best checkpoint in the bucket, as far as this process knows.
        failure: The error of the last attempt to publish; None after a success.
        refused: The last error that refused a checkpoint for good; the checkpoint stays in the spool.
        lost: The error of the checkpoint lost last: never sealed, dropped for room, damaged on the disk, or vanished
            from the spool. Also the error of an alias that could not be renewed.
        at_end: Called when the threads have ended, on the last of them, with the lock held.
    """

    spool: Spool
    publisher: Publisher
    yardstick: Yardstick
    supersede: bool
    stats: Stats
    on_published: Callable[[Checkpoint, bool], None]
    best_durable: float | None = None
    failure: Exception | None = None
    refused: Exception | None = None
    lost: Exception | None = None
    at_end: Callable[[], None] | None = None
    _jobs: deque[CapturedCheckpoint] = field(default_factory=deque)
    _sealing: CapturedCheckpoint | None = None
    _entries: deque[SpoolEntry] = field(default_factory=deque)
    _publishing: SpoolEntry | None = None
    _urgent: str | None = None
    _hopes: dict[str, float | None] = field(default_factory=dict)
    _captured: dict[str, float] = field(default_factory=dict)
    _turns: Turns = field(default_factory=Turns)
    _kind_lost: type[BaseException] | None = None
    _raised: list[Exception] = field(default_factory=list)
    _stopping: bool = False
    _retiring: bool = False
    _releasing: bool = False
    _living: int = 0
    # The one lock. It is re-entrant: a writer's finalizer calls `retire` on any thread, perhaps on one that holds it.
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def best(self) -> float | None:
        """The score to beat: the best in the bucket or on the way there, without failed checkpoints."""
        best = self.best_durable
        with self._changed:
            for score in self._hopes.values():
                best = score if is_better(score, best, self.yardstick.mode) else best
        return best

    @property
    def pending(self) -> int:
        """How many checkpoints were captured and are not yet in the bucket."""
        with self._changed:
            return self._pending()

    def _pending(self) -> int:
        return len(self._jobs) + bool(self._sealing) + len(self._entries) + bool(self._publishing)

    def submit(
        self, capture: Callable[[], CapturedCheckpoint], *, score: float | None = None, urgent: bool = False
    ) -> None:
        """Capture a model and queue the snapshot. First waits for the disk, if another snapshot waits already.

        Args:
            capture: Called on this thread, without the lock.
            score: The monitored value; with `supersede`, a better score than the waiting one's ends the wait.
            urgent: Whether this checkpoint goes before all others. An urgent one always waits for its turn here.

        Raises:
            WriterStateError: The pipeline was stopped before the call or during the call.
        """
        self._start()
        with self._changed:
            while self._jobs and (urgent or not self._makes_way(self._jobs[0], score)):
                self._require_going()
                self._changed.wait()
        # Without the lock: a capture may take long, and the sealer needs the lock to take the next snapshot.
        job = capture()
        with self._changed:
            self._require_going()  # again: `stop` may have come during the capture
            while self._jobs:  # at most one, and superseded by this one
                older = self._jobs.popleft()
                self._give_up(older.id)
                older.snapshot.discard()
                self.stats.superseded += 1
            self._jobs.append(job)
            self._urgent = job.id if urgent else self._urgent
            self._hopes[job.id] = job.score
            self._captured[job.id] = job.captured
            self._changed.notify_all()

    def _makes_way(self, waiting: CapturedCheckpoint, score: float | None) -> bool:
        return self.supersede and waiting.id != self._urgent and self.yardstick.displaces(score, waiting.score)

    def adopt(self, entries: list[SpoolEntry]) -> None:
        """Queue checkpoints sealed by earlier processes, in this order."""
        if not entries:
            return
        self._start()
        with self._changed:
            self._entries.extend(entries)
            self._hopes.update({entry.record.id: self.yardstick.score(entry) for entry in entries})
            self._changed.notify_all()

    def flush(self, timeout: float) -> None:
        """Wait until no checkpoint is pending. First ends every rest after a failure, except of refused checkpoints.

        Args:
            timeout: Seconds.

        Raises:
            DrainError: The time ran out, or publishing failed, or a checkpoint is refused; sealed checkpoints wait in
                the spool.
        """
        deadline = time.monotonic() + timeout
        tell_at = time.monotonic() + 5.0
        with self._changed:
            self._turns.wake()
            self._changed.notify_all()
            while self._pending():
                left = deadline - time.monotonic()
                if self._rests() or left <= 0:
                    raise self._not_drained(timeout)
                self._changed.wait(min(left, 1.0))  # not longer: the log line below is due without any change
                if time.monotonic() >= tell_at:
                    tell_at = time.monotonic() + 30.0
                    log.warning("Waiting for %s to reach %s.", count(self._pending()), self.spool.location.name)

    def _rests(self) -> bool:
        """Return whether both threads are idle, and no checkpoint may be uploaded now."""
        busy = self._jobs or self._sealing or self._publishing
        return not busy and self._next() is None

    def stop(self, *, release: bool = False) -> None:
        """End the threads after their present work, without waiting for queued uploads. Repeating is harmless.

        Captured snapshots are still written to the spool. Waits for each thread at most 0.1 seconds if work is under
        way, else at most 10 seconds; then the threads go on alone.

        Args:
            release: Whether to release the spool's locks when the threads have ended, so that any process may recover.
        """
        with self._changed:
            if release and not self._living and not self._releasing:  # no thread is left to do it
                self.spool.close()
            self._releasing = self._releasing or release
            self._stopping = True
            self._changed.notify_all()
            busy = self._jobs or self._sealing or self._publishing
        for thread in self._threads:
            if thread is not threading.current_thread():  # a callback may close the writer on the publisher's thread
                thread.join(timeout=0.1 if busy else 10.0)

    def retire(self) -> None:
        """Let the threads end by themselves when no work is left. Returns at once."""
        with self._changed:
            self._retiring = self._releasing = True
            self._changed.notify_all()

    def is_news(self, failure: Exception | None) -> bool:
        """Return whether a failure is new; a second call with the same error returns False. None is never new."""
        if failure is None or any(failure is raised for raised in self._raised):
            return False
        self._raised.append(failure)
        return True

    @property
    def leftovers(self) -> Leftovers:
        """The checkpoints not in the bucket, with their place on the local disk."""
        with self._changed:
            waiting = [entry for entry in (self._publishing, *self._entries) if entry]
            why = self._turns.refusals
            refused = {self.spool.location.url(e.record.key): why.get(e.record.id) for e in waiting}
            return Leftovers(
                self.spool.location,
                self.spool.folder,
                sealed=len(waiting),
                unwritten=len(self._jobs) + bool(self._sealing),
                refused={url: error for url, error in refused.items() if error is not None},
            )

    def _require_going(self) -> None:
        if self._stopping:
            raise WriterStateError(f"Cannot save to {self.spool.location.name}: the writer was closed meanwhile.")

    def _start(self) -> None:
        with self._changed:
            self._require_going()
            if self._threads:  # under the lock: two threads may submit first
                return
            steps = {"sealer": self._seal_next, "publisher": self._publish_next}
            self._living = len(steps)
            self._threads += [keep_at(step, name, at_end=self._ended) for name, step in steps.items()]

    def _ended(self) -> None:
        with self._changed:
            self._living -= 1
            if not self._living:
                self._stopping = True  # after `retire`: a later `submit` must fail, as nothing would take its job
                with contextlib.suppress(OSError):  # the kernel releases the locks when the process ends
                    if self._releasing:
                        self.spool.close()
                if self.at_end is not None:
                    self.at_end()

    # Sealer thread

    def _seal_next(self) -> bool:
        """Seal the waiting snapshot, or give a sign of life; return False if no snapshot will come any more."""
        with self._changed:
            if not (self._jobs or self._stopping or self._retiring):
                self._changed.wait(BEAT)
            if not self._jobs and (self._stopping or self._retiring):
                return False
            job = self._sealing = self._jobs.popleft() if self._jobs else None
            self._changed.notify_all()
        if job is None:
            self.spool.beat()  # without the lock: a slow disk would hold up the training thread too
            return True
        try:
            self._seal(job)
        finally:
            del job  # frees the snapshot's memory before the next wait
            with self._changed:
                self._sealing = None
                self._changed.notify_all()
        return True

    def _seal(self, job: CapturedCheckpoint) -> None:
        try:
            self._make_room(job.snapshot.nbytes, job.snapshot.written)
            entry = self.spool.seal(job.id, job.suffix, job.snapshot.write, job.complete, blocks=True)
        except BaseException as exc:  # noqa: BLE001 - a user's layer may raise anything: logged, counted, training goes on
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
            self._turns.resume()  # a new checkpoint is a reason to try the run again
            self._sealing = None
            self._changed.notify_all()

    def _supersede(self, newer: SpoolEntry) -> None:
        # The one under upload is not in `_entries`: it is never superseded.
        displaced = [entry for entry in self._entries if self.yardstick.displaces_sealed(newer, entry)]
        for entry in displaced:
            if entry.record.id != self._urgent:
                self._entries.remove(entry)
                self._give_up(entry.record.id)
                self.stats.superseded += 1
                _drop(entry)

    def _make_room(self, needed: int, there: int) -> None:
        """Drop the oldest waiting checkpoints, except the best and the urgent, until `needed` bytes fit.

        Args:
            needed: Bytes of the next checkpoint.
            there: How many of these bytes are in the spool, and counted there, already.

        Raises:
            SpoolFullError: There is no room, and no checkpoint to drop.
        """
        while (room := self.spool.room() + there) < needed:
            with self._changed:
                victim = self._victim()  # chosen and removed under one lock: the publisher may take it otherwise
                if victim is None:
                    raise SpoolFullError(
                        f"The spool {self.spool.folder} has room for {max(room, 0)} more bytes (spool_limit is "
                        f"{self.spool.limit}, and half the free disk is left alone), and a checkpoint needs {needed}."
                    )
                self._entries.remove(victim)
                self._give_up(victim.record.id)
                self.stats.dropped += 1
                _drop(victim)
                self.lost = SpoolFullError(
                    f"The spool is full: the checkpoint of epoch {victim.record.epoch + 1} "
                    f"({self.spool.location.url(victim.record.key)}) was dropped before it was uploaded. "
                    "Raise spool_limit, or see why uploads are slow."
                )
            log.warning("%s", self.lost)

    def _victim(self) -> SpoolEntry | None:
        """Return the oldest waiting checkpoint that may be dropped: not urgent, not the best of a series and metric.

        If the best is under upload, all others of its series and metric may be dropped.
        """
        kept = best_of_each((*((self._publishing,) if self._publishing else ()), *self._entries))
        return next((e for e in self._entries if e.record.id not in kept and e.record.id != self._urgent), None)

    # Publisher thread

    def _publish_next(self) -> bool:
        """Publish the next checkpoint; return False if none will come any more."""
        entry = self._take()
        if entry is None:
            return False
        begun = time.monotonic()
        try:
            commit = self.publisher.publish(entry, self.stats.transfer)
        except BaseException as exc:  # noqa: BLE001 - any error is logged and counted; the entry stays in the spool
            self._not_published(entry, exc)
        else:
            self.stats.publish_seconds.append(time.monotonic() - begun)
            self._published(entry, commit)
        finally:
            with self._changed:  # last: `flush` must not return before the failure is logged and stored
                self._publishing = None
                self._changed.notify_all()
        return True

    def _take(self) -> SpoolEntry | None:
        """Wait for the next entry and remove the entry from the queue; return None if the thread must end."""
        with self._changed:
            while (entry := self._next()) is None or self._stopping:
                due = self._turns.due_in(self._entries)
                unwritten = self._jobs or self._sealing
                if self._stopping or (self._retiring and not unwritten and due is None):
                    return None
                self._changed.wait(due)  # then all is looked at anew: any thread may have changed the queue
            self._entries.remove(entry)
            self._publishing = entry
            return entry

    def _next(self) -> SpoolEntry | None:
        """Return the next entry to upload now, or None.

        While `_urgent` is set, only the urgent checkpoint is returned, once it is sealed and does not rest.
        """
        return self._turns.next(e for e in self._entries if self._urgent in (None, e.record.id))

    def _not_published(self, entry: SpoolEntry, exc: BaseException) -> None:
        epoch = entry.record.epoch + 1
        # Before the lock: the disk and the store may take long to answer.
        gone, whose = _is_gone(entry.path), blame(exc, self.publisher.committer)
        with self._changed:
            if gone:  # another attempt would fail too, and hold up the others
                self._give_up(entry.record.id)
                self._lose(exc, f"{entry.path} has vanished from the spool before it was uploaded, and is lost")
            elif isinstance(exc, CorruptCheckpointError):  # its bytes are no longer those that were sealed
                self._give_up(entry.record.id)
                _drop(entry)
                self._lose(exc, f"The checkpoint of epoch {epoch} was damaged on the disk, and is lost")
            else:
                self._wait_with(entry, exc, whose)

    def _wait_with(self, entry: SpoolEntry, exc: BaseException, whose: Blame) -> None:
        """Queue an entry again after a failure; the others wait too only if the run itself fails."""
        self._entries.appendleft(entry)  # at the front: the order of uploads stays
        self._publishing = None
        self._hopes.pop(entry.record.id, None)
        if whose is Blame.RUN:
            self._turns.rest()
        else:
            self._urgent = None if entry.record.id == self._urgent else self._urgent
            self._turns.step_aside(entry.record.id)
        if whose is Blame.CHECKPOINT:
            self.refused = _as_exception(exc)
            self._turns.refuse(entry.record.id, self.refused)
            url = self.spool.location.url(entry.record.key)
            what = f"{url} cannot be uploaded, and stays in {self.spool.folder}; others go on"
            self._failed(exc, what, tell=True)
            return
        news, self.failure = type(exc) is not type(self.failure), _as_exception(exc)
        what = f"{count(self._pending())} not in the bucket yet; the spool keeps what was written"
        self._failed(exc, what, tell=news)

    def _published(self, entry: SpoolEntry, commit: Commit) -> None:
        with self._changed:
            if entry.record.series == self.yardstick.series:
                self.best_durable = self.yardstick.best_score(commit.series)
            self._hopes.pop(entry.record.id, None)
            self._urgent = None if entry.record.id == self._urgent else self._urgent
            captured = self._captured.pop(entry.record.id, None)
            if captured is not None:
                self.stats.durable_seconds.append(time.monotonic() - captured)
            if self.failure is not None:
                log.warning("Uploads to %s work again.", self.spool.location.name)
            self.failure = None
            if commit.problem is not None:
                self._lose(commit.problem, f"The checkpoint of epoch {entry.record.epoch + 1} is not shown by its name")
        # Without the lock: the callback may take long, or call this pipeline.
        try:
            self.on_published(commit.series.find(entry.record.id) or entry.record, commit.is_best)
        except BaseException:  # whatever it is, the checkpoint is in the bucket all the same
            log.exception("Telling of a finished upload failed")

    # Both

    def _give_up(self, checkpoint_id: str) -> None:
        self._urgent = None if checkpoint_id == self._urgent else self._urgent
        self._hopes.pop(checkpoint_id, None)
        self._captured.pop(checkpoint_id, None)
        self._turns.forget(checkpoint_id)

    def _lose(self, exc: BaseException, what: str) -> None:
        news, self._kind_lost, self.lost = type(exc) is not self._kind_lost, type(exc), _as_exception(exc)
        self._failed(exc, what, tell=news)

    def _failed(self, exc: BaseException, what: str, *, tell: bool) -> None:
        """Count a failure; log a warning with `tell`. The lock must be held.

        Of several errors of the same class in a row, callers log the first: the others differ by keys and times only.
        Refusals are all logged.
        """
        self.stats.failures += 1
        self._changed.notify_all()
        known = isinstance(exc, RemoteCkptError | OSError)
        if tell:
            log.warning("%s. Training goes on. %s", what, exc, exc_info=None if known else exc)

    def _not_drained(self, timeout: float) -> DrainError:
        name, why = self.spool.location.name, self.failure
        reason = f"because {type(why).__name__}: {why}" if why else f"within {timeout:.0f} s"
        left = self.leftovers
        if left.only_refused:
            why, reason = self.refused, "and never will, as they are"
        error = DrainError(f"{count(self._pending())} did not reach {name} {reason}{left.told()}")
        error.__cause__ = why
        return error


def _drop(entry: SpoolEntry) -> None:
    """Delete a checkpoint from the spool; if the disk refuses, log a warning."""
    try:
        entry.drop()
    except OSError as exc:
        log.warning("%s cannot be removed from the spool: %s", entry.path, exc)


def _is_gone(path: Path) -> bool:
    """Return whether a file is certainly absent; False if the disk does not answer."""
    try:
        return not path.exists()
    except OSError:  # a network disk may be away for a while; its files are not lost
        return False


def _as_exception(exc: BaseException) -> Exception:
    """Return an `Exception`, to be raised on another thread: `SystemExit` of a user's code must not end it.

    Any other `BaseException` becomes the cause of a `RemoteCkptError`.
    """
    if isinstance(exc, Exception):
        return exc
    error = RemoteCkptError(f"{type(exc).__name__}: {exc}")
    error.__cause__ = exc
    return error
