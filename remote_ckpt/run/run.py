"""A run: list, load and verify checkpoints; add, prune and sweep them."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args, overload

from remote_ckpt.cache import PROMISE, Cache, CachedFile
from remote_ckpt.errors import (
    AccessDeniedError,
    CorruptCheckpointError,
    LocationError,
    NoCheckpointError,
    ObjectNotFoundError,
    RemoteCkptError,
    StoreError,
)
from remote_ckpt.location import Location
from remote_ckpt.manifest import Committer
from remote_ckpt.manifest.presence import Presence
from remote_ckpt.manifest.segment_store import SegmentStore
from remote_ckpt.manifest.signing import Signer
from remote_ckpt.policy import Mode, best_first, by_capture, infer_mode, is_number, scalar
from remote_ckpt.records import Checkpoint, Manifest, Series, Which
from remote_ckpt.run.keeping import ORPHAN_AGE, delete_pruned, sweep_orphans, sweep_uploads
from remote_ckpt.run.local_copy import give
from remote_ckpt.run.not_found_messages import no_checkpoint
from remote_ckpt.run.recover import Recovery, recover
from remote_ckpt.run.unnamed_objects import unnamed
from remote_ckpt.saving import other_server
from remote_ckpt.saving.publisher import Publisher
from remote_ckpt.saving.spool import Spool, SpoolEntry
from remote_ckpt.stores import ObjectStore, Progress, Transfer, open_store, require_known
from remote_ckpt.urls import options_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from remote_ckpt.run.loading import Restored
    from remote_ckpt.run.options import RunOptions, WriterOptions
    from remote_ckpt.saving.writer import Writer

T = TypeVar("T")

log = logging.getLogger("remote_ckpt")

READ_TIMEOUT = 30.0
"""Seconds for which a reader waits for the manifest when the store does not answer."""


@dataclass(frozen=True)
class Verdict:
    """The result of `Run.verify` for a checkpoint; `problem` is None when the object is as recorded."""

    checkpoint: Checkpoint
    problem: str | None = None


class Run:
    """A run: a URL prefix with a manifest.

    Reading needs only read access. The constructor sends no request.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | Location,
        *,
        storage_options: dict[str, Any] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        transfer: Transfer | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
        signing_key: bytes | str | None = None,
    ):
        """Name a run.

        Args:
            url: The run's prefix, or a filename template in it (which selects that series).
            storage_options: Arguments of the filesystem, as for fsspec. They win over the options of a UPath.
            cache_dir: The folder for downloads; by default in the user's cache folder.
            transfer: Tuning of transfers.
            spool_dir: The folder in which checkpoints wait for their upload, see `Spool`.
            signing_key: The key that signs the manifest. A manifest that was not signed with this key is refused, see
                `signing`. By default `REMOTE_CKPT_SIGNING_KEY`, if that is set.

        Raises:
            LocationError: The URL cannot be used.
            SignatureError: The signing key is empty, or shorter than 16 bytes.
        """
        self.location = url if isinstance(url, Location) else Location.parse(url)
        require_known(self.location)
        self.transfer = transfer or Transfer()
        self.signer = Signer.of(signing_key)
        self._cache = Cache(cache_dir, patience=self.transfer.deadline)
        self._spool_dir = spool_dir
        self._storage_options = {**options_of(url), **(storage_options or {})}
        self._store: ObjectStore | None = None

    @property
    def url(self) -> str:
        """The run's URL, without a password."""
        return self.location.name

    @property
    def store(self) -> ObjectStore:
        """The object store, opened on first use."""
        if self._store is None:
            self._store = open_store(self.location, self._storage_options, transfer=self.transfer)
        return self._store

    @property
    def _archive(self) -> SegmentStore:
        return SegmentStore(self.store.within(READ_TIMEOUT), self.location)

    def __repr__(self) -> str:
        return f"Run({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a copy or a pickle, without the open store: a copy opens a store on first use.

        A pickle holds no signing key, see `Signer`.
        """
        return {**vars(self), "_store": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Run:
        # The options are never changed, so both may share them; and some hold objects that cannot be copied.
        return copy.copy(self)

    # Reading

    def manifest(self) -> Manifest:
        """Return the present manifest; an empty manifest while the run has none.

        The manifest of a long run holds only the recent records, the best and the latest; `series` holds all records.

        Raises:
            ManifestError: The manifest cannot be read, or its signature is not right.
            StoreError: The store refused.
        """
        return self._committer(READ_TIMEOUT).load()

    @property
    def series(self) -> dict[str, Series]:
        """The run's series with all their records, by filename template; with a template in the URL, only this series.

        Raises:
            ManifestError: The manifest, or a segment with older records, cannot be read.
            StoreError: The store refused.
        """
        return self._reading(lambda manifest: self._whole(self._chosen(manifest)))

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints, in the order of their capture; `missing` is set where the object was found missing.

        Raises: as `series`.
        """
        records = [record for series in self.series.values() for record in series.checkpoints]
        return by_capture(records)

    @property
    def best(self) -> Checkpoint | None:
        """The best checkpoint; None while the run has no checkpoint with a score.

        Raises:
            LocationError: The run's series are judged by different metrics. Name a series by its template in the URL.
            ManifestError: The manifest cannot be read.
            StoreError: The store refused.
        """
        return next(iter(self._candidates("best", fallback=False)), None)

    @property
    def latest(self) -> Checkpoint | None:
        """The checkpoint captured last, in whichever order the commits came; None while the run has no checkpoint.

        Raises: as `manifest`.
        """
        return next(iter(self._candidates("latest", fallback=False)), None)

    def find(self, which: Which = "best") -> Checkpoint:
        """Return a checkpoint by name: `"best"`, `"latest"`, an epoch (0-based int) or an id.

        Of several checkpoints of the same epoch, the latest is returned. A checkpoint that is named by epoch or id is
        returned even if its object is missing.

        Raises:
            NoCheckpointError: There is no such checkpoint.
            LocationError: The best was asked for, and the run's series are judged by different metrics.
            ManifestError: The manifest, or a segment with older records, cannot be read.
            StoreError: The store refused.
        """
        found = next(self._candidates(which, fallback=False), None)
        if found is None:
            raise self.nothing(which)
        return found

    def nothing(self, which: Which | None = None) -> NoCheckpointError:
        """Return (do not raise) the error for a checkpoint absent from the run, with a hint where to look.

        Reads the manifest and the spool anew. With `which` None: the error for a run without any checkpoint.

        Raises:
            ManifestError: The manifest cannot be read.
            StoreError: The store refused.
        """
        manifest = self.manifest()
        chosen = self._chosen(manifest)
        left: list[str] = []
        if not any(one.checkpoints or one.segments for one in chosen.values()):
            # The listing only adds to the message: its failure must not hide the error itself.
            with contextlib.suppress(StoreError):
                left = self.unnamed()
        told = no_checkpoint(self.location, manifest, len(self.pending()), which, len(left))
        return NoCheckpointError(told)

    def unnamed(self) -> list[str]:
        """Return the keys of objects like this run's checkpoints, but never named by the run's manifest.

        With a filename template in the URL: only keys that may have been made from this template. At most
        `unnamed.MOST` objects are looked at. An object that was just uploaded is among them until its commit.

        Raises:
            ManifestError: The manifest cannot be read.
            StoreError: The store refused.
        """
        found = unnamed(self.store.within(READ_TIMEOUT), self.location, self.manifest())
        return sorted(one.key for objects in found.values() for one in objects)

    def inspect(self) -> dict[str, Series]:
        """Return the run's series as `series` does, with each record's `missing` as the store is now.

        Lists the run. Without permission to list, the marks are those of `series`. Writes nothing.

        Raises: as `series`.
        """
        presence = Presence(self.store.within(READ_TIMEOUT))
        found = self.series
        try:
            lost = presence.absent([record for one in found.values() for record in one.checkpoints])
        except AccessDeniedError:  # many readers may get objects and not list them
            return found
        there = {record.id for one in found.values() for record in one.checkpoints if record.missing} - lost
        return {
            name: one.marked(lost, missing=True).marked(there, missing=False) if lost or there else one
            for name, one in found.items()
        }

    def pull(
        self, which: Which = "best", to: str | os.PathLike[str] | None = None, *, progress: Progress | None = None
    ) -> Path:
        """Download a checkpoint to the local disk, and verify the file against the recorded digest.

        Args:
            which: `"best"`, `"latest"`, an epoch (0-based int) or an id.
            to: A file, which is replaced; or an existing folder, in which nothing is replaced, because the name comes
                from the bucket. By default the file stays in the cache.
            progress: Called with the bytes of each range.

        Returns:
            The path of the file. A file in the cache must not be changed, and is sure to stay there for ten minutes
            only: open it soon, or name a file of your own by `to`.

        Raises:
            NoCheckpointError: There is no such checkpoint.
            CorruptCheckpointError: The checkpoint, and each that could take its place, is missing or damaged.
            LocationError: The folder holds another file of the checkpoint's name; or as for `find`.
            ManifestError: The manifest, or a segment with older records, cannot be read.
            StoreError: The store refused.
        """
        checkpoint, held = self.intact(which, progress)
        with held:
            if to is None:
                # The lock ends with this block. The promise keeps other processes from trimming the file for a while.
                held.use(promise=PROMISE)
                return held.path
            return give(held.path, Path(to).expanduser(), checkpoint)

    @overload
    def load(
        self, model: Any, which: Which = "best", *, strict: Literal[True] = True, optimizer: bool = True
    ) -> Checkpoint: ...

    @overload
    def load(
        self, model: Any, which: Which = "best", *, strict: Literal[False], optimizer: bool = True
    ) -> Restored: ...

    def load(
        self, model: Any, which: Which = "best", *, strict: bool = True, optimizer: bool = True
    ) -> Checkpoint | Restored:
        """Load a checkpoint into a Keras model of the same architecture, with the state of all its optimizers.

        Every array of the checkpoint and every weight of the model is accounted for before anything is assigned. A best
        (or latest) that is missing, or differs from its digest, is passed over with a warning, and the next best (or
        the latest before it) is loaded. An optimizer whose state does not fit keeps its present values, and one warning
        gives the reason. A model with a `load_weights` of its own loads the file by that method: then `strict` and
        `optimizer` have no effect. For the training thread.

        Args:
            model: Built: called once on data, or begun with an `Input`.
            which: `"best"`, `"latest"`, an epoch (0-based int) or an id.
            strict: False loads the layers that fit and leaves the others as they are (transfer learning).
            optimizer: False leaves the optimizers alone.

        Returns:
            The checkpoint that was loaded; with `strict=False` a `Restored`, which also has what was and was not taken.

        Raises:
            NoCheckpointError: There is no such checkpoint.
            CorruptCheckpointError: No intact checkpoint is left to load, or the file is not safe to load. The model's
                weights are as they were, with one exception, see `load_into`.
            ArchitectureError: The model lacks weights that the checkpoint has, or the reverse; with `strict=False`,
                nothing fits. The model's weights are as they were. It is a `ValueError`.
            LocationError: As for `find`.
            ManifestError: The manifest, or a segment with older records, cannot be read.
            StoreError: The store refused.
        """
        from remote_ckpt.run.loading import restore

        restored = restore(self, model, which, strict=strict, optimizer=optimizer)
        return restored.checkpoint if strict else restored

    def watch(self, poll: float = 10.0) -> Iterator[Checkpoint]:
        """Yield the best checkpoint, then each new best, forever.

        The calling thread sleeps between two looks at the manifest. An error ends the iteration.

        Args:
            poll: Seconds between two looks.

        Raises: as `best`.
        """
        seen: str | None = None
        while True:
            best = self.best
            if best is not None and best.id != seen:
                seen = best.id
                yield best
            time.sleep(poll)

    def verify(self, which: Which | None = None, *, progress: Progress | None = None) -> Iterator[Verdict]:
        """Download checkpoints, compare each with its recorded digest, and yield the verdicts.

        Nothing is kept on the disk, and the cache is not used as a source.

        Args:
            which: As for `find`; None for all checkpoints, missing ones included.
            progress: Called with the bytes of each range.

        Raises: as `series` and `find`.
        """
        for checkpoint in self.checkpoints if which is None else [self.find(which)]:
            try:
                self._cache.verify(checkpoint, self.store, progress)
            except (CorruptCheckpointError, ObjectNotFoundError) as exc:
                yield Verdict(checkpoint, str(exc))
            else:
                yield Verdict(checkpoint)

    # Keeping

    def writer(
        self,
        template: str,
        *,
        monitor: str = "val_loss",
        mode: Literal["auto", "min", "max"] = "auto",
        **options: Unpack[WriterOptions],
    ) -> Writer:
        """Return an open writer for a custom training loop.

        Args:
            template: Filename template, relative to the run.
            monitor: The metric that decides which checkpoint is the best.
            mode: `"min"`, `"max"`, or `"auto"`: the words of the metric's name decide, see `metric_names`.
            **options: See `writer.SeriesOptions`: `save_best_only`, `keep_best`, `keep_last`, `threshold`, `on_error`;
                and `spool_limit` in bytes.

        Raises:
            LocationError: The template cannot be used.
            DirectionError: The mode is "auto", and the words of the name decide nothing.
            ValueError: The mode is none of these.
            ManifestError: The manifest cannot be read.
            StoreError: The store cannot be read.
        """
        from remote_ckpt.saving.writer import SeriesOptions, Writer

        limit = options.pop("spool_limit", None)
        direction = _direction(monitor, mode)
        location = self.location.with_template(template)
        writer = Writer(
            location,
            self.store,
            SeriesOptions(monitor=monitor, mode=direction, **options),  # type: ignore[misc]
            spool=self._spool(limit),
            transfer=self.transfer,
            signer=self.signer,
        )
        writer.open()
        return writer

    def push(
        self,
        path: str | os.PathLike[str],
        *,
        score: float,
        epoch: int | None = None,
        monitor: str | None = None,
        mode: str = "auto",
        logs: Mapping[str, float] | None = None,
        progress: Progress | None = None,
    ) -> Checkpoint:
        """Publish an existing file as a checkpoint of the run; the best, if the score beats all others.

        The file joins the series of the URL's filename template. Without a template in the URL, it joins the run's
        series with the same suffix, or begins a series called `pushed-{epoch:02d}`. The time at which the file was
        written counts as its capture, so an old file does not become the latest, and retention counts it among the old
        checkpoints. Nothing is overwritten, and nothing is pruned. A push that broke off goes on when it is repeated.
        Repeating a push that succeeded changes nothing while the manifest itself holds the record; once the record has
        moved to a segment, the file is published again.

        Args:
            path: A `.weights.h5`, `.keras` or `.h5` file. It is copied, and must not change meanwhile.
            score: The value of the monitored metric.
            epoch: 0-based; by default the epoch after that of the checkpoint that was captured last before the file was
                written.
            monitor: The metric of the score; by default the metric by which the run is judged, else `val_loss`.
            mode: `"min"`, `"max"`, or `"auto"`: the run decides, or else the metric's name.
            logs: Other metrics, for the filename template and the record.
            progress: Called with the bytes of each part.

        Raises:
            CorruptCheckpointError: The file is damaged, not safe to load, or changed meanwhile.
            DirectionError: The mode is "auto", and neither the run nor the words of the name decide.
            ValueError: The mode is none of these, or the score is no number.
            LocationError: There is no such file, or its suffix is not a checkpoint's; or the run has several series
                that the file could join, or judges by another metric.
            ManifestError: The manifest cannot be read, or cannot be written without its signing key.
            StoreError: The store refused. The checkpoint waits in the spool: push again, or `recover`.
        """
        from remote_ckpt.run.importing import Facts, push

        direction = None if mode == "auto" else _direction("", mode)
        value = scalar(score)
        if value is None:
            raise ValueError(f"The score is a number. Received: {type(score).__name__}")
        facts = Facts(value, epoch, monitor, direction, dict(logs or {}))
        spool = self._spool()
        source = Path(path).expanduser()
        return push(source, facts, location=self.location, committer=self._committer(), spool=spool, progress=progress)

    def rebuild(
        self,
        *,
        monitor: str | None = None,
        mode: str = "auto",
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> list[Checkpoint]:
        """Add checkpoints to the manifest from the run's objects, after the manifest was lost or put back too old.

        Segments hold whole records of older checkpoints. Every other object is downloaded for its size and digests; its
        epoch comes from its name, and it gets no score. With a filename template in the URL, objects whose names may
        have been made from the template are recorded under this template. Without one, templates are guessed from the
        names. Records that are in the manifest stay, except those that an earlier rebuild put under a guessed template:
        they move to the right one. No object is changed. Repeating changes nothing.

        Args:
            monitor: The metric of the scores in the segments' records, needed where several logs could be it.
            mode: `"min"`, `"max"`, or `"auto"`: the metric's name decides.
            dry_run: Only return the records, and write nothing; objects are downloaded all the same.
            progress: Called with the bytes of each range.

        Returns:
            The added records, in the order of their capture; empty if the manifest names everything.

        Raises:
            ValueError: The mode is none of these, or cannot be inferred from the metric's name.
            ManifestError: There is a manifest that cannot be read: move it away first. Or several logs could be the
                metric of the scores.
            StoreError: The store refused.
        """
        from remote_ckpt.run.rebuilding import Judge, rebuild

        judge = Judge(monitor, None if mode == "auto" else _direction("", mode))
        return rebuild(self.location, self._committer(), judge, dry_run=dry_run, progress=progress)

    def prune(
        self, keep_best: int | None = None, keep_last: int | None = None, *, dry_run: bool = False
    ) -> list[Checkpoint]:
        """Delete checkpoints beyond the rules; the best and the latest of each series always stay.

        Records that are marked as missing stay too. The records are removed by one commit, then the objects are
        deleted. After an error in between, objects are left that no manifest names: `sweep` deletes them.

        Args:
            keep_best: How many of the best of each series to keep; None leaves the choice to `keep_last`.
            keep_last: How many of the latest of each series to keep; None leaves the choice to `keep_best`. With both
                None nothing is deleted.
            dry_run: Only return the records, and change nothing.

        Returns:
            The records that were removed, or with `dry_run` would be.

        Raises:
            CommitConflictError: Other writers won every round.
            ManifestError: The manifest, or a segment with older records, cannot be read.
            StoreError: The store refused.
        """
        gone: list[Checkpoint] = []

        def change(manifest: Manifest) -> Manifest:
            gone.clear()  # called once for each round: another writer's commit made the last round's result void
            changed = manifest
            for template, series in self._whole(self._chosen(manifest)).items():
                pruned, lost = series.pruned(keep_best, keep_last)
                if lost:
                    gone.extend(lost)
                    changed = changed.with_series(template, pruned)
            return manifest if dry_run else changed  # the same object back: nothing is written

        committer = self._committer()
        manifest = committer.change(change)
        if not dry_run:
            # After the commit: readers of the new manifest never ask for these objects, and a crash here leaves
            # orphans.
            delete_pruned(committer, manifest, gone)
        return gone

    def sweep(self, older_than: timedelta = ORPHAN_AGE, *, dry_run: bool = False) -> list[str]:
        """Delete the run's orphans, and abort the run's unfinished uploads.

        Orphans are named by neither the manifest nor a segment, and either lie in the hidden folder (the spool of a
        local run excepted) or were named once: a process that is killed between pruning and deleting leaves them. An
        object outside the hidden folder that the manifest never named is left alone, whoever put it there. Without a
        manifest that names a series no object is deleted; unfinished uploads are aborted all the same. An unfinished
        upload to a key that no series of the run can have goes on. The manifest is read again before each deletion of
        an object.

        Args:
            older_than: Objects must be older than this, and for an unfinished upload nothing sent for so long.
            dry_run: Only return the keys, and change nothing.

        Returns:
            The keys that were deleted or whose uploads were aborted; with `dry_run` those that would be.

        Raises:
            ManifestError: The manifest, or a segment, cannot be read. Nothing more is deleted.
            StoreError: The store refused.
        """
        committer = self._committer()
        waiting = {entry.record.series for entry in self.pending()}
        templates = waiting | ({self.location.template} if self.location.template else set())
        return sweep_orphans(committer, older_than, dry_run=dry_run) + sweep_uploads(
            committer, templates, older_than, dry_run=dry_run
        )

    def pending(self) -> list[SpoolEntry]:
        """Return the checkpoints in this machine's spool for this run and this server.

        Checkpoints without a recorded server are among them.

        Raises:
            StoreError: Something waits, and the run's server cannot be found out.
        """
        return self._spool().waiting()

    def elsewhere(self) -> list[str]:
        """Return sentences about checkpoints in this machine's spool under this URL for other servers.

        Checkpoints without a recorded server are counted too, unless the run can have only one server.

        Raises: as `pending`.
        """
        return other_server.sentences(self._spool())

    def recover(self, *, progress: Progress | None = None) -> list[Checkpoint]:
        """Upload and commit the checkpoints of dead processes in this machine's spool.

        The checkpoints of living processes stay theirs. A checkpoint sealed for another server under the same URL stays
        in the spool. A checkpoint without a recorded server, as earlier versions sealed them, is uploaded to this
        server.

        Returns:
            The checkpoints that are in the bucket now.

        Raises:
            StoreError: The store refused a checkpoint, or all. A checkpoint that was not uploaded is still in the
                spool.
            CorruptCheckpointError: A checkpoint was damaged on the local disk, and was dropped.
            SaveFailedError: Several checkpoints failed, for different reasons.
            RemoteCkptError: Any other failure, as an error of its own class. A message about several failures names
                each URL. The other checkpoints are uploaded, unless the run itself cannot be written to.
        """
        recovery = self.recovery(progress=progress)
        recovery.check()
        return recovery.done

    def recovery(self, *, progress: Progress | None = None) -> Recovery:
        """Do the same as `recover`, but return failures in a `Recovery` instead of raising them.

        Raises:
            StoreError: Something waits, and the run's server cannot be found out.
        """
        publisher = Publisher(self.store, self.location, self._committer())
        return recover(self._spool(), publisher, progress)

    def _spool(self, limit: int | None = None) -> Spool:
        return Spool(self.location, self._spool_dir, limit, server=lambda: self.store.server)

    def _committer(self, patience: float | None = None) -> Committer:
        store = self.store if patience is None else self.store.within(patience)
        return Committer(store, self.location, signer=self.signer)

    def _chosen(self, manifest: Manifest) -> dict[str, Series]:
        template = self.location.template
        return {name: series for name, series in manifest.series.items() if template in (None, name)}

    def _whole(self, chosen: dict[str, Series]) -> dict[str, Series]:
        return self._looked_for({name: self._archive.whole(name, series) for name, series in chosen.items()})

    def _looked_for(self, chosen: dict[str, Series]) -> dict[str, Series]:
        """Return the series with missing records unmarked if found; ask the store only about marked records."""
        presence = Presence(self.store.within(READ_TIMEOUT))
        return {name: presence.looked_for(series) for name, series in chosen.items()}

    def _reading(self, use: Callable[[Manifest], T]) -> T:
        """Return `use(manifest)`, see `Committer.reading`."""
        return self._committer(READ_TIMEOUT).reading(use)

    def _candidates(self, which: Which, *, fallback: bool = True) -> Iterator[Checkpoint]:
        """Yield the wanted checkpoint, then with `fallback` the others in the order of preference.

        There is a fallback only for the best and the latest. Segments are read only when the fallback is reached, or
        for an epoch or an id.
        """
        if which not in ("best", "latest"):
            found = [record for one in self.series.values() if (record := one.find(which))]
            yield from by_capture(found)[-1:]
            return
        chosen = self._looked_for(self._chosen(self.manifest()))
        first = next(iter(_ordered(which, chosen, [c for one in chosen.values() if (c := one.find(which))])), None)
        if first is not None:
            yield first
        if fallback and any(one.checkpoints for one in chosen.values()):
            records = [record for one in self.series.values() for record in one.checkpoints if record.id != _id(first)]
            ordered = _ordered(which, chosen, records)
            # Missing ones last: the attempt to open one raises the reason.
            yield from sorted(ordered, key=lambda record: record.missing)

    def intact(self, which: Which, progress: Progress | None = None) -> tuple[Checkpoint, CachedFile]:
        """Download and verify the wanted checkpoint; return record and locked cache file.

        Of the best and the latest, a checkpoint that is missing or damaged is passed over with a warning, for the next
        in order. The caller closes the file.

        Raises:
            NoCheckpointError: There is no such checkpoint.
            CorruptCheckpointError: No candidate is intact.
            LocationError: As for `find`.
            ManifestError: The manifest, or a segment with older records, cannot be read.
            StoreError: The store refused.
        """
        problem: RemoteCkptError | None = None
        passed: set[str] = set()
        again = True
        while again:
            again = False
            for number, checkpoint in enumerate(self._candidates(which)):
                try:
                    return checkpoint, self._cache.open(checkpoint, self.store, progress)
                except ObjectNotFoundError as exc:
                    problem = exc
                    again = number == 0 and checkpoint.id not in passed
                except CorruptCheckpointError as exc:
                    problem = exc
                passed.add(checkpoint.id)
                # A writer may have pruned the checkpoint after this process read the manifest. Then the manifest names
                # another best by now: read it again, once for each checkpoint that was first choice.
                if again:
                    break
                log.warning("Passing over epoch %d: %s", checkpoint.epoch + 1, problem)
        if problem is None:
            raise self.nothing(which)
        raise CorruptCheckpointError(
            f"No intact checkpoint ({which}) in {self.url}; the last problem: {problem}"
        ) from problem


def _ordered(which: Which, series: Mapping[str, Series], records: list[Checkpoint]) -> list[Checkpoint]:
    """Return the records in the order of preference: best first, or latest first.

    For the best, records without a score are left out, and all series that have a best must be judged by the same
    metric and direction.

    Raises:
        LocationError: Two series are judged differently.
    """
    if which == "latest":
        return by_capture(records)[::-1]
    judged = {(one.monitor, one.mode) for one in series.values() if one.best}
    if len(judged) > 1:
        named = ", ".join(sorted(f"{monitor} ({mode})" for monitor, mode in judged))
        raise LocationError(f"The run's series are judged by different metrics: {named}. Name one by its template.")
    scored = [record for record in records if is_number(record.score)]
    return best_first(scored, next(iter(judged))[1]) if judged else []


def _id(record: Checkpoint | None) -> str | None:
    return None if record is None else record.id


def _direction(monitor: str, mode: str) -> Mode:
    if mode == "auto":
        return infer_mode(monitor)
    if mode not in get_args(Mode):
        raise ValueError(f"mode is 'auto', 'min' or 'max'. Received: {mode!r}")
    return cast("Mode", mode)


@overload
def load_best(
    model: Any,
    url: str | os.PathLike[str],
    *,
    strict: Literal[True] = True,
    optimizer: bool = True,
    **options: Unpack[RunOptions],
) -> Checkpoint: ...


@overload
def load_best(
    model: Any,
    url: str | os.PathLike[str],
    *,
    strict: Literal[False],
    optimizer: bool = True,
    **options: Unpack[RunOptions],
) -> Restored: ...


def load_best(
    model: Any,
    url: str | os.PathLike[str],
    *,
    strict: bool = True,
    optimizer: bool = True,
    **options: Unpack[RunOptions],
) -> Checkpoint | Restored:
    """Load the best checkpoint of a run into `model`; see `Run.load`. Other options as for `Run`."""
    run = Run(url, **options)
    if strict:
        return run.load(model, "best", optimizer=optimizer)
    return run.load(model, "best", strict=False, optimizer=optimizer)


@overload
def load_latest(
    model: Any,
    url: str | os.PathLike[str],
    *,
    strict: Literal[True] = True,
    optimizer: bool = True,
    **options: Unpack[RunOptions],
) -> Checkpoint: ...


@overload
def load_latest(
    model: Any,
    url: str | os.PathLike[str],
    *,
    strict: Literal[False],
    optimizer: bool = True,
    **options: Unpack[RunOptions],
) -> Restored: ...


def load_latest(
    model: Any,
    url: str | os.PathLike[str],
    *,
    strict: bool = True,
    optimizer: bool = True,
    **options: Unpack[RunOptions],
) -> Checkpoint | Restored:
    """Load the latest checkpoint of a run into `model`; see `Run.load`. Other options as for `Run`."""
    run = Run(url, **options)
    if strict:
        return run.load(model, "latest", optimizer=optimizer)
    return run.load(model, "latest", strict=False, optimizer=optimizer)
