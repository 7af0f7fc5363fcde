"""The two background threads of a writer: snapshots are sealed on the local disk, sealed checkpoints are published.

::

    training thread ──submit──► [one waiting] ──sealer──► [sealed entries] ──publisher──► bucket

Sealing goes at the disk's speed and publishing at the network's, so a slow network never keeps a snapshot in memory.
At most one snapshot waits while another is written. What happens to a third depends on the writer: with
`save_best_only` it takes the waiting one's place if its score is better; else the training thread waits for the disk.
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

from remote_ckpt.alive import BEAT
from remote_ckpt.blame import Blame, blame
from remote_ckpt.checkpoint import Checkpoint
from remote_ckpt.commit import Commit
from remote_ckpt.errors import (
    CorruptCheckpointError,
    DrainError,
    RemoteCkptError,
    SpoolFullError,
    WriterStateError,
)
from remote_ckpt.judging import Yardstick, best_of_each
from remote_ckpt.leftovers import Leftovers, count
from remote_ckpt.policy import is_better
from remote_ckpt.publish import Publisher
from remote_ckpt.spool import Entry, Spool, Terms
from remote_ckpt.stats import Stats
from remote_ckpt.stores.base import Digests
from remote_ckpt.threads import keep_at
from remote_ckpt.turns import Turns

log = logging.getLogger("remote_ckpt")


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

    One that is refused for its own sake steps aside for those behind it. It stays in the spool, and is not tried again
    by this pipeline; `blame` decides. What stands in the spool when the threads end is anybody's to recover.

    Attributes:
        best_durable: Score of the best checkpoint in the bucket, as far as this process knows.
        failure: Why the last attempt to publish failed; None after a success.
        refused: Why a checkpoint was last refused for good; it stays in the spool.
        lost: Why a checkpoint was last lost for good: never sealed, dropped for room, or vanished from the spool.
        at_end: Called once the threads have ended, from the last of them.
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
    _jobs: deque[Job] = field(default_factory=deque)
    _sealing: Job | None = None
    _entries: deque[Entry] = field(default_factory=deque)
    _publishing: Entry | None = None
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
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def best(self) -> float | None:
        """The score to beat: the best in the bucket or on its way there. What failed is not on its way."""
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

    def submit(self, capture: Callable[[], Job], *, score: float | None = None, urgent: bool = False) -> None:
        """Capture a model of this score and queue it. Waits where a snapshot more would break the bound on memory.

        Raises:
            WriterStateError: The pipeline was stopped, before or meanwhile.
        """
        self._start()
        with self._changed:
            while self._jobs and (urgent or not self._makes_way(self._jobs[0], score)):
                self._require_going()
                self._changed.wait()
        job = capture()
        with self._changed:
            self._require_going()
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

    def _makes_way(self, waiting: Job, score: float | None) -> bool:
        return self.supersede and waiting.id != self._urgent and self.yardstick.displaces(score, waiting.score)

    def adopt(self, entries: list[Entry]) -> None:
        """Queue what an earlier process has sealed."""
        if not entries:
            return
        self._start()
        with self._changed:
            self._entries.extend(entries)
            self._hopes.update({entry.record.id: self.yardstick.score(entry) for entry in entries})
            self._changed.notify_all()

    def flush(self, timeout: float) -> None:
        """Wait until everything submitted so far is in the bucket.

        Raises:
            DrainError: The time ran out, or publishing failed; what was sealed waits in the spool.
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
                self._changed.wait(min(left, 1.0))
                if time.monotonic() >= tell_at:
                    tell_at = time.monotonic() + 30.0
                    log.warning("Waiting for %s to reach %s.", count(self._pending()), self.spool.location.name)

    def _rests(self) -> bool:
        """Return whether nothing is under way, nor will be before a rest after a failure is over, if it ever is."""
        busy = self._jobs or self._sealing or self._publishing
        return not busy and self._next() is None

    def stop(self, *, release: bool = False) -> None:
        """Let the threads end once their present work is done; does not wait for queued work. Repeating is harmless.

        What was captured is still written to the spool; with `release` that is anybody's once the threads have ended.
        """
        with self._changed:
            if release and not self._living and not self._releasing:
                self.spool.close()
            self._releasing = self._releasing or release
            self._stopping = True
            self._changed.notify_all()
            busy = self._jobs or self._sealing or self._publishing
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=0.1 if busy else 10.0)

    def retire(self) -> None:
        """Let the threads end by themselves once nothing is left to do. Never waits."""
        with self._changed:
            self._retiring = self._releasing = True
            self._changed.notify_all()

    def is_news(self, failure: Exception | None) -> bool:
        """Return whether there is a failure that was not asked about before: each is raised once."""
        if failure is None or any(failure is raised for raised in self._raised):
            return False
        self._raised.append(failure)
        return True

    @property
    def leftovers(self) -> Leftovers:
        """What is not in the bucket, and where it waits."""
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
            if self._threads:
                return
            steps = {"sealer": self._seal_next, "publisher": self._publish_next}
            self._living = len(steps)
            self._threads += [keep_at(step, name, at_end=self._ended) for name, step in steps.items()]

    def _ended(self) -> None:
        with self._changed:
            self._living -= 1
            if not self._living:
                self._stopping = True
                with contextlib.suppress(OSError):
                    if self._releasing:
                        self.spool.close()
                if self.at_end is not None:
                    self.at_end()

    # Sealer thread

    def _seal_next(self) -> bool:
        """Write the snapshot that waits, or show that this process lives; return False once there will be none."""
        with self._changed:
            if not (self._jobs or self._stopping or self._retiring):
                self._changed.wait(BEAT)
            if not self._jobs and (self._stopping or self._retiring):
                return False
            job = self._sealing = self._jobs.popleft() if self._jobs else None
            self._changed.notify_all()
        if job is None:
            self.spool.beat()  # without the lock: it may wait for the disk, and so would the training thread
            return True
        try:
            self._seal(job)
        finally:
            del job  # the snapshot's memory
            with self._changed:
                self._sealing = None
                self._changed.notify_all()
        return True

    def _seal(self, job: Job) -> None:
        try:
            self._make_room(job.snapshot.nbytes, job.snapshot.written)
            entry = self.spool.seal(job.id, job.suffix, job.snapshot.write, job.complete, blocks=True)
        except BaseException as exc:  # noqa: BLE001 - whatever a user's layer raises: told, counted, training goes on
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
            self._turns.resume()
            self._sealing = None
            self._changed.notify_all()

    def _supersede(self, newer: Entry) -> None:
        displaced = [entry for entry in self._entries if self.yardstick.displaces_sealed(newer, entry)]
        for entry in displaced:
            if entry.record.id != self._urgent:
                self._entries.remove(entry)
                self._give_up(entry.record.id)
                self.stats.superseded += 1
                _drop(entry)

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
                _drop(victim)
                self.lost = SpoolFullError(
                    f"The spool is full: the checkpoint of epoch {victim.record.epoch + 1} "
                    f"({self.spool.location.url(victim.record.key)}) was dropped before it was uploaded. "
                    "Raise spool_limit, or see why uploads are slow."
                )
            log.warning("%s", self.lost)

    def _victim(self) -> Entry | None:
        """Return the oldest that waits, but no urgent one, nor the best of its kind, which may be under way."""
        kept = best_of_each((*((self._publishing,) if self._publishing else ()), *self._entries))
        return next((e for e in self._entries if e.record.id not in kept and e.record.id != self._urgent), None)

    # Publisher thread

    def _publish_next(self) -> bool:
        """Upload what is next; return False once there will be nothing."""
        entry = self._take()
        if entry is None:
            return False
        begun = time.monotonic()
        try:
            commit = self.publisher.publish(entry, self.stats.transfer)
        except BaseException as exc:  # noqa: BLE001 - as in _seal; the entry stays in the spool
            self._not_published(entry, exc)
        else:
            self.stats.publish_seconds.append(time.monotonic() - begun)
            self._published(entry, commit)
        finally:
            with self._changed:  # last, so that flush returns after the messages
                self._publishing = None
                self._changed.notify_all()
        return True

    def _take(self) -> Entry | None:
        """Wait for what is next, and take it out of the queue; None once the thread is to end."""
        with self._changed:
            while (entry := self._next()) is None or self._stopping:
                due = self._turns.due_in(self._entries)
                unwritten = self._jobs or self._sealing
                if self._stopping or (self._retiring and not unwritten and due is None):
                    return None
                self._changed.wait(due)
            self._entries.remove(entry)
            self._publishing = entry
            return entry

    def _next(self) -> Entry | None:
        """Return what is to be uploaded now; None while there is nothing, or while the urgent one is being written."""
        return self._turns.next(e for e in self._entries if self._urgent in (None, e.record.id))

    def _not_published(self, entry: Entry, exc: BaseException) -> None:
        epoch = entry.record.epoch + 1
        gone, whose = _is_gone(entry.path), blame(exc, self.publisher.committer)
        with self._changed:
            if gone:  # trying again would hold up all that wait behind it
                self._give_up(entry.record.id)
                self._lose(exc, f"{entry.path} has vanished from the spool before it was uploaded, and is lost")
            elif isinstance(exc, CorruptCheckpointError):  # nor will it ever be again what was sealed
                self._give_up(entry.record.id)
                _drop(entry)
                self._lose(exc, f"The checkpoint of epoch {epoch} was damaged on the disk, and is lost")
            else:
                self._wait_with(entry, exc, whose)

    def _wait_with(self, entry: Entry, exc: BaseException, whose: Blame) -> None:
        """Queue again what was not published; only the run's own failure makes the others wait as well."""
        self._entries.appendleft(entry)
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

    def _published(self, entry: Entry, commit: Commit) -> None:
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
        try:
            self.on_published(commit.series.find(entry.record.id) or entry.record, commit.is_best)
        except BaseException:
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
        """Count a failure; `tell` once for each kind in a row: their texts differ by keys and times alone."""
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


def _drop(entry: Entry) -> None:
    """Forget a checkpoint; a disk that refuses keeps its file, and costs nothing else."""
    try:
        entry.drop()
    except OSError as exc:
        log.warning("%s cannot be removed from the spool: %s", entry.path, exc)


def _is_gone(path: Path) -> bool:
    """Return whether a file is certainly not there; a disk that does not answer shows nothing."""
    try:
        return not path.exists()
    except OSError:
        return False


def _as_exception(exc: BaseException) -> Exception:
    """Return an error that may be raised elsewhere: `SystemExit` of a user's code must not end another thread."""
    if isinstance(exc, Exception):
        return exc
    error = RemoteCkptError(f"{type(exc).__name__}: {exc}")
    error.__cause__ = exc
    return error
