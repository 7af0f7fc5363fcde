"""`RemoteModelCheckpoint`: Keras's `ModelCheckpoint`, to a bucket, in the background. A thin layer over a writer."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import keras
from keras.src.utils import io_utils  # prints around the progress bar as Keras itself does; no public name

from remote_ckpt.callback.callback_state import Riders
from remote_ckpt.callback.messages import direction, judge
from remote_ckpt.callback.model_building import build_from_batches
from remote_ckpt.callback.preemption_save import PreemptionSave
from remote_ckpt.callback.process_group import ProcessGroup, process_group
from remote_ckpt.callback.resume import resume as resume_from
from remote_ckpt.callback.tensorboard import StatsBoard
from remote_ckpt.errors import (
    DirectionError,
    DrainError,
    LocationError,
    RemoteCkptError,
    SaveFailedError,
    TemplateError,
)
from remote_ckpt.location import NameTemplate
from remote_ckpt.preemption import PreemptionGuard
from remote_ckpt.preemption.notices import Notice
from remote_ckpt.records import Checkpoint
from remote_ckpt.run import Run
from remote_ckpt.saving.spool import Spool
from remote_ckpt.saving.stats import Stats
from remote_ckpt.saving.writer import OnError, SeriesOptions, Writer
from remote_ckpt.stores import Transfer
from remote_ckpt.urls import text_of

log = logging.getLogger("remote_ckpt")

_IDLE = {
    "_model": None,
    "params": None,
    "_writer": None,
    "_stats": None,
    "_team": None,
    "resumed_from": None,
    "_current_epoch": 0,
    "_last_batch": 0,
    "_last_batch_seen": 0,
    "_batches_seen_since_last_saving": 0,
}
"""Attributes of a callback before its first training, Keras's own among them."""


class RemoteModelCheckpoint(keras.callbacks.ModelCheckpoint):  # type: ignore[misc]  # Keras ships no types
    """Save a Keras model, or only the weights, to a bucket during training.

    Takes `ModelCheckpoint`'s arguments in its order, and behaves like it, except that: `filepath` may be any fsspec
    URL; saving and uploading happen in the background; the best score is remembered across restarts and machines; NaN
    is never the best; and a checkpoint's object is complete in the bucket before the record of it is written. Where
    `fit` runs in several processes that train one model together, the first saves, and all resume from the same
    checkpoint.

    A copy (`copy.deepcopy`) and an unpickled callback have the same settings, and copies of riders and guard; they
    train independently, and their statistics begin at zero. A pickle contains `storage_options`, secrets included.

    Attributes:
        run: The run that is written to.
        stats: The cost of saving so far.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool | None = None,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
        *,
        storage_options: dict[str, Any] | None = None,
        resume: Literal["latest", "best"] | None = None,
        keep_best: int | None = None,
        keep_last: int | None = None,
        riders: Iterable[Any] = (),
        on_error: OnError = "warn",
        spool_dir: str | os.PathLike[str] | None = None,
        spool_limit: int | None = None,
        transfer: Transfer | None = None,
        preemption: PreemptionGuard | None = None,
        signing_key: bytes | str | None = None,
        tensorboard: str | os.PathLike[str] | None = None,
    ):
        """Make the callback; nothing is sent before training begins.

        Args:
            filepath: URL or path of a filename template, as for Keras: `"s3://bucket/run/{epoch:02d}.weights.h5"`.
            monitor: As for Keras.
            verbose: As for Keras.
            save_best_only: As for Keras.
            save_weights_only: As for Keras; None decides by the suffix.
            mode: As for Keras, but `"auto"` recognises more metrics.
            save_freq: As for Keras.
            initial_value_threshold: As for Keras; the best score in the run counts too.
            storage_options: Passed to fsspec.
            resume: Before training, restore this checkpoint, optimizer and epoch included, if the run has one.
            keep_best: How many of the best to keep; None (with `keep_last` None) keeps everything, as Keras does;
                under a fixed name, the best and the latest.
            keep_last: How many of the latest to keep.
            riders: Other callbacks, listed before this one, whose state travels along and is restored by `resume`;
                see `callback_state`.
            on_error: `"warn"`: a failure is logged and training goes on; `"raise"`: it ends training.
            spool_dir: Where checkpoints wait until they are uploaded.
            spool_limit: Bytes that waiting checkpoints may take; by default 10 GiB. Never more than half the free disk.
            transfer: Tuning of uploads.
            preemption: Listens for a notice that the machine will be taken away; then the model is saved at the end of
                the batch, and training ends.
            signing_key: Signs the manifest, and refuses a manifest not signed with this key, see `signing`; by default
                `REMOTE_CKPT_SIGNING_KEY`, if that is set.
            tensorboard: A `log_dir` of TensorBoard for curves of the cost of saving, see `tensorboard.StatsBoard`.

        Raises:
            LocationError: The URL or the template cannot be used.
            ValueError: Another argument cannot be used.
        """
        self.run = Run(
            filepath, storage_options=storage_options, transfer=transfer, spool_dir=spool_dir, signing_key=signing_key
        )
        location = self.run.location
        if location.template is None:
            raise LocationError(
                "The filepath provided must end in '.weights.h5', '.keras' or '.h5'. "
                f"Received: filepath={location.name}"
            )
        template = NameTemplate(location.template)
        location.check_template(template, urgent=preemption is not None)
        if save_weights_only is None:
            save_weights_only = template.weights_only
        elif template.weights_only and not save_weights_only:
            raise LocationError(
                f"{location.template!r} is a name for weights only: leave save_weights_only out, or name it '….keras'."
            )
        _check_choice("resume", resume, (None, "latest", "best"))
        _check_choice("on_error", on_error, ("warn", "raise"))
        if save_freq != "epoch" and (not isinstance(save_freq, int) or isinstance(save_freq, bool) or save_freq < 1):
            raise ValueError(
                f"Unrecognized save_freq: {save_freq}. Expected save_freq are 'epoch' or integer values above 0."
            )
        self._writer: Writer | None = None  # before Keras's constructor, which up to 3.10 reads and sets `best`
        self._threshold: float | None = None
        super().__init__(text_of(filepath), monitor, verbose, save_best_only, save_weights_only, mode, save_freq, None)
        self.mode = mode if mode in ("min", "max") else "auto"  # Keras up to 3.10 does not keep it
        self._threshold = initial_value_threshold
        self._resume = resume
        self._riders = Riders(riders)
        self._last_batch = 0
        self._listen(preemption)
        self._keep = (keep_best, keep_last)
        self._on_error: OnError = on_error
        self._spool = (spool_dir, spool_limit)
        self._stats = Stats()
        self._board = StatsBoard(tensorboard) if tensorboard is not None else None
        self._team = ProcessGroup()
        self.resumed_from: Checkpoint | None = None

    def _listen(self, guard: PreemptionGuard | None) -> None:
        self._departure = PreemptionSave(guard, self._save_before_leaving) if guard else None
        if guard:  # only then: Keras evaluates without waiting for each batch where nobody looks at them
            self.on_test_batch_end = self._look_within_validation

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a copy or a pickle: settings, riders, guard, and a subclass's own attributes.

        The state of a single training is left out: model, writer, counters, statistics.
        """
        state = {name: value for name, value in vars(self).items() if name not in ("_departure", "on_test_batch_end")}
        return state | _IDLE | {"_guard": self._departure.guard if self._departure else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        guard = state.pop("_guard")
        self.__dict__.update(state, _stats=Stats(), _team=ProcessGroup())
        self._listen(guard)

    @property
    def best(self) -> float | None:
        """The score to beat, as Keras's `best`: the best in the bucket or on the way there, or the threshold.

        The threshold alone before training.
        """
        return self._writer.best if self._writer else self._threshold

    @best.setter
    def best(self, value: float | None) -> None:
        self._threshold = value  # Keras's constructor sets it, and users who carry a score over by hand

    @property
    def preempted(self) -> Notice | None:
        """The preemption notice received in the last training, or None."""
        return self._departure.notice if self._departure else None

    @property
    def stats(self) -> Stats:
        """The cost of saving so far, over all calls of `fit`."""
        return self._stats

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything saved so far is in the bucket; see `Writer.flush`.

        Args:
            timeout: Seconds; by default the transfer's deadline.

        Raises:
            DrainError, SaveFailedError: As `Writer.flush`.
        """
        if self._writer is not None and not self._writer.closed:  # closed at the end of `fit`, when all was there
            self._writer.flush(timeout)

    def close(self) -> None:
        """Flush, then release threads and locks; a later training opens a new writer.

        Raises:
            DrainError, SaveFailedError: As `Writer.close`; closed all the same.
        """
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    # Keras calls these, on the training thread.

    def set_params(self, params: Any) -> None:
        """Record the riders' positions in the list of callbacks."""
        super().set_params(params)
        self._riders.note_order(params)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Read the best score so far, queue checkpoints left by an earlier process, and resume if `resume` is set.

        Raises:
            DirectionError: Nothing shows which way the monitored metric is better, and `mode` is "auto".
            ValueError: A rider is not listed before this callback, or its state cannot be recorded.
            ArchitectureError: With `resume`, the model cannot be built before it is restored, or does not fit.
            RemoteCkptError: The run cannot be read, with `resume` or if `on_error` is "raise"; or, with `resume`, there
                is a checkpoint that cannot be restored.
        """
        super().on_train_begin(logs)
        direction(self.mode, self.monitor, self.model)  # a wrong guess would keep the worst: no time is spent before it
        self._riders.check(self.params)
        if self._resume is not None:
            build_from_batches(self.model, self.run.url)
        self._team = process_group()
        if self._team.saves:
            self._open_writer()
        else:
            log.info(
                "Process 1 of %d saves to %s; this is process %d.", self._team.size, self.run.url, self._team.index + 1
            )
        if self._resume is not None:
            self._restore()
        if self._departure:
            self._departure.begin(self)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Remember the epoch for saves between batches."""
        super().on_epoch_begin(epoch, logs)
        self._current_epoch = epoch
        self._forget_initial_epoch()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save, when saving by batches, or after a preemption notice."""
        self._last_batch = batch
        if not self._leave_after_batch(batch, logs or {}):
            super().on_train_batch_end(batch, logs)

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """End validation at once if a preemption notice has cut the epoch short."""
        super().on_test_begin(logs)
        if self._departure:
            self._departure.test_began(self.model)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save, when saving by epochs, or after a preemption notice."""
        if self._departure and self._departure.epoch_ended(self.model, logs or {}):
            return
        if self.save_freq == "epoch":
            self._save_model(epoch=epoch, batch=None, logs=logs)
        self._draw(epoch)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Wait until everything is in the bucket, and report the outcome. After a signal, the process may end here.

        After a preemption notice the wait is limited to the time that the notice leaves, and no failure to upload is
        raised.

        Raises:
            DrainError, SaveFailedError: A checkpoint is not in the bucket, and `on_error` is "raise".
            Exception: TensorBoard's file could not be closed, and `on_error` is "raise".
        """
        super().on_train_end(logs)
        self._forget_initial_epoch()
        try:
            if self._writer is not None:
                self._finish(self._writer)
        finally:  # also after a failure: a signal that is held back must be passed on
            try:
                self._draw(None)
            finally:
                if self._departure:
                    self._departure.end(self)

    def _finish(self, writer: Writer) -> None:
        seconds = self._departure.time_for_uploads if self._departure else None
        try:
            writer.flush(seconds)
        except Exception as exc:
            # After a notice (`seconds`) nothing is raised: training ends in order, and the spool keeps what is left.
            if self._on_error == "raise" and seconds is None:
                raise
            _log_failure(exc, "Not all that was saved is in the bucket.")
        else:
            if seconds is not None:
                log.warning("All that was saved is in %s.", self.run.url)
        try:
            if not writer.stats.pending:
                writer.close()  # a sweep of many fits must not leave two threads behind for each
        except Exception as exc:  # as for `flush`
            if self._on_error == "raise" and seconds is None:
                raise
            _log_failure(exc, "The writer could not be closed.")
        summary = f"{self.run.url}: {writer.stats.summary()}"
        if self.verbose > 0:
            self._say(summary)
        else:
            log.info("%s", summary)

    def _save_model(self, epoch: int, batch: int | None, logs: Mapping[str, Any] | None) -> None:
        """Save as Keras does, but let a failure end training only if `on_error` is "raise".

        Raised in any case: DirectionError, and at the first save a name that cannot be formatted. That is a mistake
        which Keras raises at once too; a metric that is missing in a later epoch is a failure like any other.
        """
        if not self._team.saves:
            return
        try:
            self._decide_and_save(epoch, batch, dict(logs or {}))
        except Exception as exc:
            first = not self._stats.saves and self.resumed_from is None
            if (
                self._on_error == "raise"
                or isinstance(exc, DirectionError)
                or (first and isinstance(exc, TemplateError))
            ):
                raise
            _log_failure(exc, f"The model of epoch {epoch + 1} could not be saved. Training goes on.")

    def _decide_and_save(self, epoch: int, batch: int | None, logs: dict[str, Any]) -> None:
        """Decide as Keras does, print Keras's message, and submit the model to the writer if a save is due."""
        writer = self._open_writer()
        location = self.run.location
        name = location.url(writer.template.format(epoch=epoch, batch=batch, logs=logs))
        message: str | None = f"Epoch {epoch + 1}: saving model to {name}"
        due = True
        if self.save_best_only:
            due, message = judge(writer, self.monitor, epoch, logs, name)
        self._say(message)
        if due:
            writer.submit(self.model, epoch=epoch, batch=batch, logs=logs, riders=self._riders.states())

    def _draw(self, epoch: int | None) -> None:
        """Write an epoch's costs for TensorBoard, or (None) close the file. After a failure nothing more is written."""
        if self._board is None:
            return
        try:
            if epoch is None:
                self._board.close()
            else:
                self._board.write(self._stats, epoch)
        except Exception as exc:  # a full disk, or no TensorFlow: curves are not worth a training
            self._board = None
            if self._on_error == "raise":
                raise
            _log_failure(exc, "TensorBoard gets no more curves of what saving costs.")

    def _leave_after_batch(self, batch: int, logs: Mapping[str, Any]) -> bool:
        leaving = self._departure
        return leaving is not None and leaving.batch_ended(self.model, batch, (self.params or {}).get("steps"), logs)

    def _look_within_validation(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        self._leave_after_batch(self._last_batch, {})

    def _save_before_leaving(self, batch: int | None, logs: Mapping[str, Any]) -> None:
        assert self._departure is not None
        if not self._team.saves:
            return
        epoch = self._current_epoch
        place = f"epoch {epoch + 1}" + ("" if batch is None else f", batch {batch + 1}")
        try:
            writer, riders = self._open_writer(), self._riders.states()
            writer.submit(self.model, epoch=epoch, batch=batch, logs=logs, riders=riders, urgent=True)
            self._departure.tell(place, self._stats, writer.spool_folder)
        except Exception as exc:  # noqa: BLE001 - whatever fails, training must end in order
            _log_failure(exc, f"The model of {place} could not be saved.")

    def _say(self, message: str | None) -> None:
        if message and self.verbose > 0:
            with contextlib.suppress(OSError, ValueError):  # stdout may be closed, or a pipe that nobody reads
                io_utils.print_msg(f"\n{message}")

    def _published(self, record: Checkpoint, _is_best: bool) -> None:  # on the publisher's thread
        shown = record.key if NameTemplate(record.series).fields else record.series
        self._say(f"Epoch {record.epoch + 1}: finished saving model to {self.run.location.url(shown)}")

    def _open_writer(self) -> Writer:
        """Return the open writer; make and open a new writer if there is none.

        If the run cannot be read, the failure is logged and training goes on: checkpoints wait in the spool. With
        `resume`, or if `on_error` is "raise", the failure is raised.
        """
        if self._writer is not None and not self._writer.closed:
            return self._writer
        keep_best, keep_last = self._keep
        options = SeriesOptions(
            monitor=self.monitor,
            mode=direction(self.mode, self.monitor, self.model),
            save_best_only=self.save_best_only,
            keep_best=keep_best,
            keep_last=keep_last,
            threshold=self._threshold,
            on_error=self._on_error,
        )
        spool = Spool(self.run.location, *self._spool, server=lambda: self.run.store.server)
        self._writer = Writer(
            self.run.location,
            self.run.store,
            options,
            spool=spool,
            transfer=self.run.transfer,
            on_published=self._published,
            stats=self._stats,
            signer=self.run.signer,
        )
        try:
            self._writer.open()
        except Exception as exc:
            # The store may be out of reach only for now. But to resume without the run would be to start anew.
            if self._on_error == "raise" or self._resume is not None:
                self._writer = None
                raise
            kept = f"checkpoints are kept in {spool.folder} until they can be uploaded."
            _log_failure(exc, f"{self.run.url} cannot be read. Training goes on, and {kept}")
            self._writer.open(unread=True)
        return self._writer

    def _restore(self) -> None:
        assert self._resume is not None
        try:
            self.flush()  # what an earlier process left in the spool may be newer than what is in the bucket
        except (DrainError, SaveFailedError) as exc:  # what is in the bucket is complete, if perhaps older
            log.warning("Resuming from what is in the bucket. %s", exc)
        restored = resume_from(
            self.run, self.model, self._resume, self._riders, (self.params or {}).get("epochs"), self._team
        )
        self.resumed_from = found = restored.checkpoint if restored else None
        if restored and restored.problems and self._writer is not None:
            self._writer.keep_everything(f"resuming did not restore all of {restored.checkpoint.url}")
        if found:
            place = "after" if found.batch is None else "at the beginning of"
            self._say(f"Resuming {place} epoch {found.epoch + 1} from {found.url}")

    def _forget_initial_epoch(self) -> None:
        """Reset the model's initial epoch, set by a resume, for the sake of the next `fit`.

        Call this only once `fit` has begun its first epoch, or ended: `fit` reads the attribute before that.
        """
        if self.resumed_from is not None:
            self.model._initial_epoch = None


def _log_failure(exc: Exception, what: str) -> None:
    """Log a failure and the consequence `what`; for an unexpected class of exception, with the traceback."""
    known = isinstance(exc, RemoteCkptError | OSError)
    log.warning("%s %s", what, exc, exc_info=None if known else exc)


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is one of {', '.join(map(repr, choices))}. Received: {value!r}")
