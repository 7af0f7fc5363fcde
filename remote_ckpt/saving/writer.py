"""Save the checkpoints of a series in the background, for custom loops and for the callback.

::

    training thread   save ─ policy.is_better ─ capture ──► pipeline: seal ─ publish (upload, commit, alias, prune)
"""

from __future__ import annotations

import contextlib
import enum
import logging
import math
import os
import secrets
import socket
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn

from remote_ckpt.capture import Capturer, WholeModelSnapshot
from remote_ckpt.capture.optimizers import OptimizerNotes
from remote_ckpt.errors import (
    CopyError,
    DrainError,
    LocationError,
    RemoteCkptError,
    SaveFailedError,
    TemplateError,
    WriterStateError,
)
from remote_ckpt.location import Location, NameTemplate
from remote_ckpt.manifest import Committer
from remote_ckpt.manifest.signing import UNSIGNED, Signer
from remote_ckpt.policy import Mode, is_better, scalar
from remote_ckpt.records import Checkpoint, Manifest, Series
from remote_ckpt.records.readable import recordable
from remote_ckpt.records.series_rules import SeriesRules
from remote_ckpt.records.state_json import check_size, encode
from remote_ckpt.saving import exit_drain, other_server
from remote_ckpt.saving.pipeline import CapturedCheckpoint, Pipeline, WritableSnapshot
from remote_ckpt.saving.publisher import Publisher, object_key
from remote_ckpt.saving.spool import Spool
from remote_ckpt.saving.stats import Stats
from remote_ckpt.saving.supersession import Yardstick
from remote_ckpt.saving.writer_drain import Drain
from remote_ckpt.stores.base import Digests, ObjectStore, Transfer

log = logging.getLogger("remote_ckpt")

OPEN_TIMEOUT = 15.0
"""Seconds that the beginning of training waits for a request to a store that does not answer."""

_LAST = datetime.max.replace(tzinfo=timezone.utc)

OnError = Literal["warn", "raise"]
Published = Callable[[Checkpoint, bool], None]
"""Called on the publisher's thread with each checkpoint that has reached the bucket, and whether it is the best."""


class State(enum.Enum):
    """A writer's state. Changes only in the order NEW, OPEN, CLOSING, CLOSED; states may be skipped.

    Attributes:
        NEW: Made; or `open` has failed, and may be called again.
        OPEN: Accepts checkpoints.
        CLOSING: `close` waits for uploads; no checkpoint is accepted any more.
        CLOSED: `close` has ended. Threads and locks are released, at the latest when the upload under way ends.
    """

    NEW = "was not opened: call open() first, or use Run.writer, which returns an open one"
    OPEN = "is open already"
    CLOSING = "is being closed: get a new one from Run.writer"
    CLOSED = "was closed: get a new one from Run.writer"


@dataclass(frozen=True)
class SeriesOptions:
    """The scoring and retention of a series, and the reaction to failures.

    Attributes:
        monitor: The metric that decides.
        mode: The metric's direction.
        save_best_only: Save only improvements, and models without a score (the metric was not logged). A better save
            supersedes a checkpoint that still waits.
        keep_best: How many of the best to keep; None with `keep_last` None keeps everything.
        keep_last: How many of the latest to keep.
        threshold: The score to beat from the start, if any.
        on_error: `"warn"`: failures are logged and training goes on. `"raise"`: the next save raises them, too.
            A lost checkpoint is raised by `flush` and `close` with either value.
    """

    monitor: str = "val_loss"
    mode: Mode = "min"
    save_best_only: bool = False
    keep_best: int | None = None
    keep_last: int | None = None
    threshold: float | None = None
    on_error: OnError = "warn"

    def __post_init__(self) -> None:
        """Convert the threshold to a float, as any metric.

        Raises:
            ValueError: The threshold is not a number.
        """
        threshold = scalar(self.threshold)
        if threshold is None and self.threshold is not None:
            raise ValueError(f"The threshold is a number. Received: {type(self.threshold).__name__}")
        object.__setattr__(self, "threshold", threshold)


class Writer:
    """A writer of a series: saves checkpoints in the background.

    Call `save`, `flush` and `close` on one thread, the thread that trains. As a context manager, the writer is closed
    on exit, also after an exception. A call in a `state` that does not allow it raises `WriterStateError` at once. If
    the last reference to a writer is gone without `close`, its threads finish their work and end. The interpreter's
    exit waits for them, at most `exits.exit_timeout()` seconds.
    """

    def __init__(
        self,
        location: Location,
        store: ObjectStore,
        options: SeriesOptions,
        *,
        spool: Spool,
        transfer: Transfer | None = None,
        on_published: Published | None = None,
        stats: Stats | None = None,
        signer: Signer = UNSIGNED,
    ):
        """Make a writer; nothing is read or written before `open`.

        Raises:
            LocationError: The filename template cannot be used.
        """
        if location.template is None:
            raise RemoteCkptError("A writer needs a filename template.")
        self.location = location
        self.template = NameTemplate(location.template)
        location.check_template(self.template)
        self.options = options
        self.stats = stats or Stats()
        self._store = store
        self._spool = spool
        self._transfer = transfer or Transfer()
        self._committer = Committer(store, location, signer=signer)
        self._yardstick = Yardstick(self.template.text, options.monitor, options.mode)
        self._pipeline = Pipeline(
            spool=spool,
            publisher=Publisher(store, location, self._committer),
            yardstick=self._yardstick,
            supersede=options.save_best_only,
            stats=self.stats,
            on_published=on_published or _say_nothing,
        )
        self._capturer: Capturer | None = None
        self._captured_model: Any = None
        self._optimizers = OptimizerNotes()
        self._keeps_everything = False
        self._newest = datetime.min.replace(tzinfo=timezone.utc)
        self._state, self._process = State.NEW, os.getpid()
        self._drain = Drain(self._pipeline)
        # Not at exit: there, `Drain` finishes the pipeline.
        weakref.finalize(self, self._pipeline.retire).atexit = False

    @property
    def state(self) -> State:
        """The present state of the writer."""
        return self._state

    @property
    def closed(self) -> bool:
        """Whether the writer is closed or being closed."""
        return self._state in (State.CLOSING, State.CLOSED)

    def open(self, *, unread: bool = False) -> None:
        """Read the run's manifest, and queue the sealed checkpoints of earlier processes.

        Blocks the training thread for a request or two, at most about `OPEN_TIMEOUT` seconds each. After an error no
        lock is held: any process may recover the checkpoints in the spool, and `open` may be called again.

        Args:
            unread: Do not read the manifest. If the spool cannot be read either, log a warning and open all the same,
                whatever the error.

        Raises:
            ManifestError: The manifest cannot be read, or the run has no room for another series.
            StoreError: The store cannot be read: no bucket, no access, no answer.
            SpoolError, OSError: The spool cannot be read.
            WriterStateError: The writer was opened or closed before.
        """
        self._require(State.NEW, "open")
        if not unread:
            self._learn()
        try:
            left = self._spool.adopt()
            for sentence in other_server.sentences(self._spool):
                log.warning("%s", sentence)
            self._newest = max((entry.record.created for entry in left), default=self._newest)
            self._pipeline.adopt([self._yardstick.rejudged(entry, self._terms) for entry in left])
        except BaseException as exc:  # Ctrl-C too: locks kept here would hide the checkpoints from a next `open`
            self._spool.close()
            if not unread or not isinstance(exc, Exception):
                raise
            known = isinstance(exc, OSError | RemoteCkptError)
            log.warning(
                "%s cannot be looked through for what earlier processes left: %s",
                self._spool.folder,
                exc,
                exc_info=None if known else exc,
            )
        else:
            if left:
                self._drain.register()
        self._state = State.OPEN

    def _learn(self) -> None:
        committer = self._committer_in_a_hurry()
        name = self.template.text

        def standing(manifest: Manifest) -> Series | None:
            if (series := manifest.of(name)) is None:
                return None
            return committer.looked_at(name, committer.judged(name, series, *self._judge))[0]

        if (series := committer.reading(standing, to_write=True)) is None:
            committer.require_room(name)
            return
        best, latest = series.find("best"), series.find("latest")
        self._pipeline.best_durable = best.score if best else None
        self._newest = max(latest.created, self._newest) if latest else self._newest

    def _committer_in_a_hurry(self) -> Committer:
        store, signer = self._store.within(OPEN_TIMEOUT), self._committer.signer
        policy = replace(self._committer.policy, deadline=OPEN_TIMEOUT)
        # The same memory: both committers must notice when the manifest loses what this writer has seen.
        return Committer(store, self.location, policy, signer=signer, memory=self._committer.memory)

    @property
    def _judge(self) -> tuple[str, Mode]:
        return self.options.monitor, self.options.mode

    @property
    def spool_folder(self) -> Path:
        """Where this run's checkpoints wait on the local disk."""
        return self._spool.folder

    @property
    def best(self) -> float | None:
        """The score to beat: the best in the bucket or on the way there, or the threshold if better."""
        best, threshold = self._pipeline.best, self.options.threshold
        return threshold if is_better(threshold, best, self.options.mode) else best

    def improves(self, score: float | None) -> bool:
        """Return whether `score` beats `best`; NaN never does."""
        return is_better(score, self.best, self.options.mode)

    def save(
        self,
        model: Any,
        *,
        epoch: int,
        logs: Mapping[str, Any] | None = None,
        batch: int | None = None,
        step: int | None = None,
        riders: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> bool:
        """Save the model in its present state; with `save_best_only`, skip a score without improvement.

        Returns within a millisecond for weights captured by reference; writing, uploading and committing happen in
        the background. If a snapshot still waits for the disk, and this one may not supersede it, waits for the disk.
        Whole models (`.keras`, `.h5`) are written to the local disk before the call returns.

        Args:
            model: A Keras model.
            epoch: 0-based.
            logs: Metrics; scalars are recorded.
            batch: 0-based batch within the epoch, or None at an epoch's end.
            step: The optimizer's iterations, if known.
            riders: State that travels along, by name: numbers, text, and lists and dicts of them; at most
                `state_json.MAX_BYTES` as JSON. `state_json.decode` of the record's `riders` gives it back.

        Returns:
            Whether the checkpoint was queued. A model without a score is queued with `save_best_only`, too.

        Raises:
            ValueError: The riders' state holds other types, or is larger.
            TemplateError: The filename template names a metric that is not in `logs`. After the first save this is
                logged instead if `on_error` is "warn".
            LocationError, SpoolError: `on_error` is "raise", and the name or the local disk cannot be used.
            ManifestError: The record is larger than a reader accepts: too many logs, too long a name.
            SaveFailedError: An earlier save failed and `on_error` is "raise".
            WriterStateError: The writer is not open.
        """
        self._require(State.OPEN, "save")
        if self.options.on_error == "raise":
            self._raise_once(self._pipeline.lost)
            self._raise_once(self._pipeline.refused)
            self._raise_once(self._pipeline.failure)
        score = scalar((logs or {}).get(self.options.monitor))
        if self.options.save_best_only and score is not None and not self.improves(score):
            return False
        # OSError: SpoolError is one, and a whole model is written to the disk during the capture.
        try:
            self.submit(model, epoch=epoch, logs=logs, batch=batch, step=step, riders=riders)
        except (LocationError, OSError) as exc:
            # A wrong template is the user's mistake: fail at the first save, before hours of training.
            mistaken = isinstance(exc, TemplateError) and not self.stats.saves
            if self.options.on_error == "raise" or mistaken:
                raise
            log.warning("The model of epoch %d could not be saved. Training goes on. %s", epoch + 1, exc)
            return False
        return True

    def submit(
        self,
        model: Any,
        *,
        epoch: int,
        logs: Mapping[str, Any] | None = None,
        batch: int | None = None,
        step: int | None = None,
        riders: Mapping[str, Mapping[str, Any]] | None = None,
        urgent: bool = False,
    ) -> str:
        """Save the model in its present state, with any score, and return the formatted name. See `save`.

        An urgent checkpoint is uploaded before all that wait, and needs no metrics: in its name, a metric that was not
        logged is `nan`.

        Raises:
            LocationError, OSError: The name or the local disk cannot be used, whatever `on_error` is.
        """
        self._require(State.OPEN, "save")
        begun = time.perf_counter()
        named = logs if not urgent else _with_unknown(self.template.names, batch, logs)
        formatted = self.template.format(epoch=epoch, batch=batch, logs=named)
        self.location.check_name(self.template, formatted)
        states = encode(riders or {}, "riders")
        check_size(states)
        checkpoint_id = secrets.token_hex(8)
        scalars = {name: value for name, raw in (logs or {}).items() if (value := scalar(raw)) is not None}
        score = scalars.get(self.options.monitor)
        facts: dict[str, Any] = {
            "id": checkpoint_id,
            "series": self.template.text,
            "key": object_key(self.template, formatted, checkpoint_id),
            "epoch": epoch,
            "batch": batch,
            "step": step,
            "score": score,
            "logs": scalars,
            "created": self._now(),
            "writer": f"{socket.gethostname()}-{os.getpid()}",
            "riders": states,
            "optimizers": self._optimizers.of(model),
        }

        draft = recordable(facts, self.options.monitor)

        def complete(digests: Digests) -> tuple[Checkpoint, SeriesRules]:
            known = {"size": digests.size, "sha256": digests.sha256, "crc32c": digests.crc32c}
            return draft.model_copy(update=known), self._terms

        def capture() -> CapturedCheckpoint:
            snapshot = self._capture(model)
            return CapturedCheckpoint(checkpoint_id, self.template.suffix, score, snapshot, complete, time.monotonic())

        self._drain.register()
        self._pipeline.submit(capture, score=score, urgent=urgent)
        self.stats.saves += 1
        self.stats.stall_seconds.append(time.perf_counter() - begun)
        self.stats.pending = self._pipeline.pending
        return formatted

    def keep_everything(self, reason: str) -> None:
        """Prune nothing from now on, despite the retention options. If these are set, log the reason once.

        Checkpoints sealed before this call keep the terms in their seals. Call on the thread that trains.

        Args:
            reason: Why old checkpoints may still be needed; ends the logged sentence.
        """
        if not self._keeps_everything and (self.options.keep_best, self.options.keep_last) != (None, None):
            log.warning("Nothing is deleted from %s by this training: %s.", self.location.name, reason)
        self._keeps_everything = True

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything saved so far is in the bucket: complete, verified and committed.

        Args:
            timeout: Seconds; by default the transfer's deadline.

        Raises:
            DrainError: A checkpoint is not in the bucket, and why; those written wait in the spool.
            SaveFailedError: A checkpoint was lost, or its alias could not be renewed; raised once for each. All others
                are in the bucket.
            WriterStateError: The writer is not open.
        """
        self._require(State.OPEN, "flush")
        self._wait(self._pipeline.flush, timeout)

    def _wait(self, flush: Callable[[float], None], timeout: float | None) -> None:
        try:
            flush(self._transfer.deadline if timeout is None else timeout)
        finally:
            self.stats.pending = self._pipeline.pending
        self._raise_once(self._pipeline.lost)

    def close(self, timeout: float | None = None) -> None:
        """Flush, then end the threads and release the locks. Repeating is harmless.

        Checkpoints not in the bucket by then wait in the spool. An upload that is under way when the time runs out goes
        on until it succeeds or fails; then the locks are released. In a forked child, only the state changes.

        Args:
            timeout: As `flush`.

        Raises:
            DrainError, SaveFailedError: As `flush`; the writer is closed all the same.
        """
        if self.closed:
            return
        was, self._state = self._state, State.CLOSING
        try:
            if was is State.OPEN and self._process == os.getpid():  # a forked child has no threads, only locks
                self._wait(self._drain.close, timeout)
                self._look_after_manifest()
        finally:
            self._state = State.CLOSED

    def _look_after_manifest(self) -> None:
        """Restore what this writer has seen of the manifest, if lost since the last commit.

        Perhaps no other process remembers these records.
        """
        if not self._committer.memory.newest:
            return
        try:
            self._committer_in_a_hurry().mend()
        except RemoteCkptError as exc:  # all checkpoints are in the bucket: no reason for `close` to fail
            log.warning("Not looked whether %s still holds what was saved: %s", self.location.name, exc)

    def __enter__(self) -> Writer:
        if self._state is State.NEW:
            self.open()
        self._require(State.OPEN, "use")
        return self

    def __reduce__(self) -> NoReturn:
        raise CopyError(
            f"A writer of {self.location.name} can be neither copied nor pickled: it has threads and locks of its own. "
            "Copy the Run, and get a writer from it where it is used."
        )

    def _require(self, state: State, doing: str) -> None:
        problem = None if self._state is state else self._state.value
        if problem is None and self._process != os.getpid():
            problem = "belongs to the process that this one was forked from: get a new one from Run.writer here"
        if problem is not None:
            raise WriterStateError(f"Cannot {doing}: the writer of {self.location.name} {problem}.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with contextlib.suppress(DrainError, SaveFailedError):  # the user's own error must not be replaced by ours
            self.close(exit_drain.exit_timeout())

    @property
    def _terms(self) -> SeriesRules:
        options = self.options
        alias = None if self.template.fields else "best" if options.save_best_only else "latest"
        keep = (options.keep_best, options.keep_last)
        if alias and keep == (None, None):
            keep = (1, 1)  # Keras keeps one file under a fixed name
        if self._keeps_everything:
            keep = (None, None)
        return SeriesRules(
            monitor=options.monitor, mode=options.mode, alias=alias, keep_best=keep[0], keep_last=keep[1]
        )

    def _capture(self, model: Any) -> WritableSnapshot:
        if not self.template.weights_only:
            return WholeModelSnapshot(model, self._spool.scratch(), self.template.suffix)
        if self._capturer is None or self._captured_model is not model:
            self._capturer, self._captured_model = Capturer(model, self._spool.scratch), model
        return self._capturer.capture()

    def _now(self) -> datetime:
        """Return the time, but later than all known records, so that a clock set back does not hide the latest.

        If a record has the last instant of `datetime`, later records get the same, and the order of commits decides.
        """
        now = datetime.now(timezone.utc)
        self._newest = max(now, self._newest + timedelta(microseconds=1) if self._newest < _LAST else _LAST)
        return self._newest

    def _raise_once(self, failure: Exception | None) -> None:
        if self._pipeline.is_news(failure):
            raise SaveFailedError(
                f"A checkpoint could not be brought into {self.location.name}: {failure}"
            ) from failure


def _with_unknown(names: tuple[str, ...], batch: int | None, logs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return logs for the name of an urgent checkpoint: NaN for each metric not logged."""
    unknown = dict.fromkeys(names, math.nan) | {"batch": 0 if batch is None else batch + 1}
    return {**unknown, **(logs or {})}


def _say_nothing(_record: Checkpoint, _is_best: bool) -> None:
    """Do nothing: the default of `on_published`."""
