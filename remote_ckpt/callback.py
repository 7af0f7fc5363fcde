"""`RemoteModelCheckpoint`: Keras's `ModelCheckpoint`, to a bucket, in the background. A thin layer over a writer."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import keras
from keras.src.utils import io_utils  # prints around the progress bar as Keras itself does; no public name

from remote_ckpt.checkpoint import Checkpoint
from remote_ckpt.errors import DrainError, LocationError, NoCheckpointError, RemoteCkptError, SaveFailedError
from remote_ckpt.location import Template
from remote_ckpt.policy import Mode, infer_mode
from remote_ckpt.run import Run
from remote_ckpt.spool import Spool
from remote_ckpt.stats import Stats
from remote_ckpt.stores import Transfer
from remote_ckpt.writer import OnError, SeriesOptions, Writer, scalar

log = logging.getLogger("remote_ckpt")


class RemoteModelCheckpoint(keras.callbacks.ModelCheckpoint):  # type: ignore[misc]  # Keras ships no types
    """Save a Keras model, or its weights, to a bucket while it trains.

    Takes `ModelCheckpoint`'s arguments in its order, and behaves like it, except that: `filepath` may be any fsspec
    URL; saving and uploading happen in the background; the best score is remembered across restarts and machines; NaN
    is never the best; and what was saved is complete in the bucket before the record of it is.

    Attributes:
        run: The run that is written to.
        stats: What saving has cost so far.
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
        on_error: OnError = "warn",
        spool_dir: str | os.PathLike[str] | None = None,
        spool_limit: int | None = None,
        transfer: Transfer | None = None,
        signing_key: bytes | str | None = None,
    ):
        """Make the callback; nothing is sent before training begins.

        Args:
            filepath: URL or path of a filename template, as for Keras: `"s3://bucket/run/{epoch:02d}.weights.h5"`.
            monitor: As for Keras.
            verbose: As for Keras.
            save_best_only: As for Keras.
            save_weights_only: As for Keras; None goes by the suffix.
            mode: As for Keras, and `"auto"` knows more metrics.
            save_freq: As for Keras.
            initial_value_threshold: As for Keras; what the run remembers counts too.
            storage_options: Passed to fsspec.
            resume: Before training, restore this checkpoint, optimizer and epoch included, if the run has one.
            keep_best: How many of the best to keep; None (with `keep_last` None) keeps everything, as Keras does.
            keep_last: How many of the latest to keep.
            on_error: `"warn"`: a failure is told and training goes on; `"raise"`: it ends training.
            spool_dir: Where checkpoints wait until they are uploaded.
            spool_limit: Bytes that they may take; 10 GiB, and never more than half the free disk.
            transfer: Tuning of uploads.
            signing_key: Signs the manifest, and refuses one that was not signed with it, see `signing`; by default
                `REMOTE_CKPT_SIGNING_KEY`, if that is set.

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
        template = Template(location.template)
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
        super().__init__(
            os.fspath(filepath), monitor, verbose, save_best_only, save_weights_only, mode, save_freq, None
        )
        self.mode = mode if mode in ("min", "max") else "auto"  # Keras up to 3.10 does not keep it
        self._threshold = initial_value_threshold
        self._resume = resume
        self._keep = (keep_best, keep_last)
        self._on_error: OnError = on_error
        self._spool = (spool_dir, spool_limit)
        self._stats = Stats()
        self.resumed_from: Checkpoint | None = None

    @property
    def best(self) -> float | None:
        """The score to beat, as Keras's attribute of this name: the best in the bucket or on its way there."""
        return self._writer.best if self._writer else self._threshold

    @best.setter
    def best(self, value: float | None) -> None:
        self._threshold = value  # Keras's constructor, and users who carry a score over by hand

    @property
    def stats(self) -> Stats:
        """What saving has cost so far, over all calls of `fit`."""
        return self._stats

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything saved so far is in the bucket; see `Writer.flush`."""
        if self._writer is not None:
            self._writer.flush(timeout)

    def close(self) -> None:
        """Flush and let go of threads and locks; training again opens them again."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    # Keras calls these, on the training thread.

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Learn the best score so far, queue what an earlier process left, and resume if asked to."""
        super().on_train_begin(logs)
        self._open_writer()
        if self._resume is not None:
            self._restore()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Remember the epoch for saves between batches."""
        super().on_epoch_begin(epoch, logs)
        self._current_epoch = epoch

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save, when saving by epochs."""
        if self.save_freq == "epoch":
            self._save_model(epoch=epoch, batch=None, logs=logs)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Wait until everything is in the bucket, and say how it went.

        Raises:
            DrainError, SaveFailedError: Something is not, and `on_error` is "raise".
        """
        super().on_train_end(logs)
        writer = self._writer
        if writer is None:
            return
        try:
            writer.flush()
        except (DrainError, SaveFailedError) as exc:
            if self._on_error == "raise":
                raise
            log.warning("%s", exc)
        if not writer.stats.pending:
            writer.close()  # a sweep of many fits must not leave two threads behind for each
        (io_utils.print_msg if self.verbose > 0 else log.info)(f"\n{self.run.url}: {writer.stats.summary()}")

    def _save_model(self, epoch: int, batch: int | None, logs: Mapping[str, Any] | None) -> None:
        """Decide as Keras does, print what Keras prints, and hand over to the writer."""
        writer = self._open_writer()
        logs = dict(logs or {})
        location = self.run.location
        name = location.url(writer.template.format(epoch=epoch, batch=batch, logs=logs))
        if self.save_best_only and not self._is_due(writer, epoch, logs, name):
            return
        if not self.save_best_only:
            self._say(f"Epoch {epoch + 1}: saving model to {name}")
        try:
            writer.submit(self.model, epoch=epoch, batch=batch, logs=logs)
        except (RemoteCkptError, OSError) as exc:
            if self._on_error == "raise":
                raise
            log.warning("The model of epoch %d could not be saved. Training goes on. %s", epoch + 1, exc)

    def _is_due(self, writer: Writer, epoch: int, logs: Mapping[str, Any], name: str) -> bool:
        current = logs.get(self.monitor)
        score = scalar(current)
        if current is None:
            known = ", ".join(sorted(logs)) or "none"
            warnings.warn(
                f"Can save best model only with {self.monitor} available. The metrics there are: {known}. "
                "Saving every time.",
                stacklevel=3,
            )
            return True
        if score is None:
            warnings.warn(
                f"Can save best model only when `monitor` is a scalar value. Received: {current}. "
                "Falling back to `save_best_only=False`.",
                stacklevel=3,
            )
            return True
        best = writer.best
        shown = "None" if best is None else f"{best:.5f}"
        if not writer.improves(score):
            self._say(f"Epoch {epoch + 1}: {self.monitor} did not improve from {shown}")
            return False
        self._say(f"Epoch {epoch + 1}: {self.monitor} improved from {shown} to {score:.5f}, saving model to {name}")
        return True

    def _say(self, message: str) -> None:
        if self.verbose > 0:
            io_utils.print_msg(f"\n{message}")

    def _published(self, record: Checkpoint, _is_best: bool) -> None:
        shown = record.key if Template(record.series).fields else record.series
        self._say(f"Epoch {record.epoch + 1}: finished saving model to {self.run.location.url(shown)}")

    def _open_writer(self) -> Writer:
        """Return the open writer. Failing to read the run is told and does not end training, unless asked to."""
        if self._writer is not None and not self._writer.closed:
            return self._writer
        keep_best, keep_last = self._keep
        options = SeriesOptions(
            monitor=self.monitor,
            mode=self._direction(),
            save_best_only=self.save_best_only,
            keep_best=keep_best,
            keep_last=keep_last,
            threshold=self._threshold,
            on_error=self._on_error,
        )
        spool = Spool(self.run.location, *self._spool)
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
        except RemoteCkptError as exc:
            if self._on_error == "raise" or self._resume is not None:
                self._writer = None
                raise
            log.warning(
                "%s cannot be read. Training goes on, and checkpoints are kept in %s until they can be uploaded. %s",
                self.run.url,
                spool.folder,
                exc,
            )
        return self._writer

    def _direction(self) -> Mode:
        if self.mode == "min":
            return "min"
        if self.mode == "max":
            return "max"
        name = self.monitor.removeprefix("val_")
        nested = [m for metric in getattr(self.model, "metrics", ()) for m in getattr(metric, "metrics", [metric])]
        direction = next((getattr(m, "_direction", None) for m in nested if m.name == name), None)
        return infer_mode(self.monitor, direction)

    def _restore(self) -> None:
        assert self._resume is not None
        try:
            self.flush()  # what an earlier process left in the spool may be newer than what is in the bucket
        except (DrainError, SaveFailedError) as exc:
            log.warning("Resuming from what is in the bucket. %s", exc)
        try:
            found = self.run.load(self.model, self._resume)
        except NoCheckpointError:
            log.info("%s holds nothing to resume from; training starts anew.", self.run.url)
            return
        self.resumed_from = found
        # As Keras's BackupAndRestore does; a checkpoint made inside an epoch repeats that epoch.
        self.model._initial_epoch = found.epoch + (1 if found.batch is None else 0)
        self._say(f"Resuming after epoch {found.epoch + 1} from {found.url}")


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is one of {', '.join(map(repr, choices))}. Received: {value!r}")
