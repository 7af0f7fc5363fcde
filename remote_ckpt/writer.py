"""One series' way into the bucket, for custom loops and for the callback: policy, capture, pipeline.

::

    training thread   save ─ policy.is_better ─ capture ──► pipeline: seal ─ publish (upload, commit, alias, prune)
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from remote_ckpt import elsewhere, exits
from remote_ckpt.capture import Capturer, WholeModelSnapshot
from remote_ckpt.checkpoint import Checkpoint
from remote_ckpt.checkpoint.plain import check_size, encode
from remote_ckpt.checkpoint.signing import UNSIGNED, Signer
from remote_ckpt.commit import Committer
from remote_ckpt.errors import DrainError, RemoteCkptError, SaveFailedError
from remote_ckpt.location import Location, Template
from remote_ckpt.pipeline import Job, Pipeline, Snapshot
from remote_ckpt.policy import Mode, is_better
from remote_ckpt.publish import Publisher, object_key
from remote_ckpt.spool import Spool, Terms
from remote_ckpt.stats import Stats
from remote_ckpt.stores.base import Digests, ObjectStore, Transfer

log = logging.getLogger("remote_ckpt")

PATIENCE = 15.0
"""Seconds that the beginning of training waits for a store that does not answer."""

OnError = Literal["warn", "raise"]
Published = Callable[[Checkpoint, bool], None]
"""Told, on the publisher's thread, of each checkpoint in the bucket and whether it is the best."""


@dataclass(frozen=True)
class SeriesOptions:
    """How a series is scored and kept.

    Attributes:
        monitor: The metric that decides.
        mode: Its direction.
        save_best_only: Save only improvements; a newer one replaces one that still waits.
        keep_best: How many of the best to keep; None with `keep_last` None keeps everything.
        keep_last: How many of the latest to keep.
        threshold: The score to beat from the start, if any.
        on_error: `"warn"`: failures are told and training goes on. `"raise"`: the next save or flush raises them.
    """

    monitor: str = "val_loss"
    mode: Mode = "min"
    save_best_only: bool = False
    keep_best: int | None = None
    keep_last: int | None = None
    threshold: float | None = None
    on_error: OnError = "warn"


class Writer:
    """Saves checkpoints of one series in the background.

    `save`, `flush` and `close` belong to one thread, the one that trains. As a context manager it closes on exit,
    also after an exception.
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
        """Make a writer; nothing is read or written before `open`."""
        if location.template is None:
            raise RemoteCkptError("A writer needs a filename template.")
        self.location = location
        self.template = Template(location.template)
        self.options = options
        self.stats = stats or Stats()
        self._store = store
        self._spool = spool
        self._transfer = transfer or Transfer()
        self._committer = Committer(store, location, signer=signer)
        self._pipeline = Pipeline(
            spool=spool,
            publisher=Publisher(store, location, self._committer),
            mode=options.mode,
            supersede=options.save_best_only,
            stats=self.stats,
            on_published=on_published or _say_nothing,
        )
        self._capturer: Capturer | None = None
        self._captured_model: Any = None
        self._newest = datetime.min.replace(tzinfo=timezone.utc)
        self._told: list[Exception] = []
        self.closed = False

    def open(self) -> None:
        """Learn what the run holds, and queue what earlier processes left in the spool.

        Blocks for a request or two, at most about `PATIENCE` seconds each: training waits for it.

        Raises:
            ManifestError: What is there is not a manifest we can read.
            StoreError: The store cannot be read: no bucket, no access, no answer.
        """
        exits.register(self)
        left = self._spool.adopt()
        for sentence in elsewhere.sentences(self._spool):
            log.warning("%s", sentence)
        self._newest = max((entry.record.created for entry in left), default=self._newest)
        self._pipeline.adopt(left)
        committer = Committer(self._store.within(PATIENCE), self.location, signer=self._committer.signer)
        series = committer.load(to_write=True).of(self.template.text)
        if series is None:
            return
        name = self.template.text
        series = committer.judged(name, series, self.options.monitor, self.options.mode)
        series, _ = committer.without_deleted(name, series)
        best, latest = series.find("best"), series.find("latest")
        self._pipeline.best_durable = best.score if best else None
        self._newest = max(latest.created, self._newest) if latest else self._newest

    @property
    def spool_folder(self) -> Path:
        """Where this run's checkpoints wait on the local disk."""
        return self._spool.folder

    @property
    def best(self) -> float | None:
        """The score to beat: the best in the bucket, on its way there, or the threshold given."""
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
        """Save the model as it is now, unless `save_best_only` and it is no improvement.

        Returns within a millisecond for weights captured by reference; writing, uploading and committing happen in
        the background. Whole models (`.keras`, `.h5`) are written to the local disk before it returns.

        Args:
            model: A Keras model.
            epoch: 0-based.
            logs: Metrics; scalars are recorded.
            batch: 0-based batch within the epoch, or None at an epoch's end.
            step: The optimizer's iterations, if known.
            riders: State that travels along, by name: numbers, text, and lists and dicts of them; at most
                `plain.MAX_BYTES` as JSON. `plain.decode` of the record's `riders` gives it back.

        Returns:
            Whether it was queued.

        Raises:
            ValueError: The riders' state holds something else, or takes more.
            TemplateError: The filename template names a metric that is not in `logs`.
            SaveFailedError: An earlier save failed and `on_error` is "raise".
        """
        if self.options.on_error == "raise":
            self._raise_once(self._pipeline.lost)
            self._raise_once(self._pipeline.failure)
        score = scalar((logs or {}).get(self.options.monitor))
        if self.options.save_best_only and score is not None and not self.improves(score):
            return False
        self.submit(model, epoch=epoch, logs=logs, batch=batch, step=step, riders=riders)
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
        """Save the model as it is now, whatever its score. Returns the key. Otherwise as `save`.

        An urgent one goes before all that waits, and needs no metrics: in its name, what was not logged is `nan`.
        """
        begun = time.perf_counter()
        named = logs if not urgent else _with_unknown(self.template.fields, batch, logs)
        formatted = self.template.format(epoch=epoch, batch=batch, logs=named)
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
        }

        def complete(digests: Digests) -> tuple[Checkpoint, Terms]:
            record = Checkpoint(size=digests.size, sha256=digests.sha256, crc32c=digests.crc32c, **facts)
            return record, self._terms

        def capture() -> Job:
            snapshot = self._capture(model)
            return Job(checkpoint_id, self.template.suffix, score, snapshot, complete, time.monotonic())

        self._pipeline.submit(capture, urgent=urgent)
        self.stats.saves += 1
        self.stats.stall_seconds.append(time.perf_counter() - begun)
        self.stats.pending = self._pipeline.pending
        return formatted

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything saved so far is in the bucket: complete, verified and committed.

        Args:
            timeout: Seconds; by default the transfer's deadline.

        Raises:
            DrainError: It is not, and why; what was written waits in the spool.
            SaveFailedError: All that is left is, but since the last flush a checkpoint was lost on its way.
        """
        try:
            self._pipeline.flush(self._transfer.deadline if timeout is None else timeout)
        finally:
            self.stats.pending = self._pipeline.pending
        self._raise_once(self._pipeline.lost)

    def close(self, timeout: float | None = None) -> None:
        """Flush, then let go of threads and locks. What is left waits in the spool. Repeating is harmless.

        Raises:
            DrainError, SaveFailedError: As `flush`; closed all the same.
        """
        if self.closed:
            return
        try:
            self.flush(timeout)
        finally:
            self.closed = True
            exits.unregister(self)
            self._pipeline.stop()
            if not self._pipeline.pending:
                self._spool.close()

    def drain_at_exit(self, timeout: float) -> None:
        """Close, telling on stderr what is going on; for an interpreter that is about to end."""
        try:
            if self._pipeline.pending:
                _tell(
                    f"finishing uploads to {self.location.name} before exit (at most {timeout:.0f} s; Ctrl-C to stop)"
                )
            self.close(timeout)
        except (DrainError, SaveFailedError) as exc:
            _tell(str(exc))
        except KeyboardInterrupt:
            _tell(f"stopped waiting. What was written is in {self._spool.folder}; `remote-ckpt recover` uploads it.")

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with contextlib.suppress(
            DrainError, SaveFailedError
        ):  # the user's own error is on its way; what is left was logged
            self.close(exits.exit_timeout())

    @property
    def _terms(self) -> Terms:
        options = self.options
        alias = None if self.template.fields else "best" if options.save_best_only else "latest"
        keep = (options.keep_best, options.keep_last)
        if alias and keep == (None, None):
            keep = (1, 1)  # Keras keeps one file under a fixed name
        return Terms(monitor=options.monitor, mode=options.mode, alias=alias, keep_best=keep[0], keep_last=keep[1])

    def _capture(self, model: Any) -> Snapshot:
        if not self.template.weights_only:
            return WholeModelSnapshot(model, self._spool.scratch(), self.template.suffix)
        if self._capturer is None or self._captured_model is not model:
            self._capturer, self._captured_model = Capturer(model), model
        return self._capturer.capture()

    def _now(self) -> datetime:
        """Return the time, later than any record known: a clock that was set back must not hide the latest."""
        now = datetime.now(timezone.utc)
        self._newest = max(now, self._newest + timedelta(microseconds=1))
        return self._newest

    def _raise_once(self, failure: Exception | None) -> None:
        if failure is None or any(failure is told for told in self._told):
            return
        self._told.append(failure)
        raise SaveFailedError(f"A checkpoint could not be brought into {self.location.name}: {failure}") from failure


def scalar(value: Any) -> float | None:
    """Return a metric as a float; None for what is not a single number."""
    if value is None or isinstance(value, str | bytes) or getattr(value, "shape", ()) not in ((), (1,)):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _with_unknown(fields: tuple[str, ...], batch: int | None, logs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return logs for a name that must not fail: NaN for each metric that was not logged."""
    unknown = dict.fromkeys(fields, math.nan) | {"batch": 0 if batch is None else batch + 1}
    return {**unknown, **(logs or {})}


def _say_nothing(_record: Checkpoint, _is_best: bool) -> None:
    """For writers whose user does not listen."""


def _tell(message: str) -> None:
    """Write to stderr, which works even when logging has been shut down."""
    with contextlib.suppress(Exception):
        print(f"remote_ckpt: {message}", file=sys.stderr, flush=True)  # noqa: T201
