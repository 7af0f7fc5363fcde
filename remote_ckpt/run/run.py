"""A run: what is in it, how to get it back, and how to keep it tidy."""

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

from remote_ckpt import elsewhere
from remote_ckpt.cache import PROMISE, Cache, CachedFile
from remote_ckpt.checkpoint import Checkpoint, Manifest, Series, Which
from remote_ckpt.checkpoint.signing import Signer
from remote_ckpt.commit import Committer
from remote_ckpt.commit.archive import Archive
from remote_ckpt.commit.presence import Presence
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
from remote_ckpt.policy import Mode, best_first, by_capture, infer_mode, is_number, scalar
from remote_ckpt.publish import Publisher
from remote_ckpt.run.giving import give
from remote_ckpt.run.hints import no_checkpoint
from remote_ckpt.run.keeping import ORPHAN_AGE, delete_pruned, sweep_orphans, sweep_uploads
from remote_ckpt.run.recover import Recovery, recover
from remote_ckpt.run.unnamed import unnamed
from remote_ckpt.spool import Entry, Spool
from remote_ckpt.stores import ObjectStore, Progress, Transfer, open_store, require_known
from remote_ckpt.urls import options_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from remote_ckpt.run.loading import Restored
    from remote_ckpt.run.options import RunOptions, WriterOptions
    from remote_ckpt.writer import Writer

T = TypeVar("T")

log = logging.getLogger("remote_ckpt")

PATIENCE = 30.0
"""Seconds that a reader waits for the manifest of a store that does not answer."""


@dataclass(frozen=True)
class Verdict:
    """What `Run.verify` found of one checkpoint; `problem` is None when it is as recorded."""

    checkpoint: Checkpoint
    problem: str | None = None


class Run:
    """A URL prefix with one manifest. Reading needs only read access; nothing is sent before it is asked for."""

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
            storage_options: Passed to fsspec; they win over those of a UPath.
            cache_dir: Where downloads are kept; by default in the user's cache folder.
            transfer: Tuning of transfers.
            spool_dir: Where checkpoints wait that are not yet uploaded, see `Spool`.
            signing_key: Signs the manifest, and refuses one that was not signed with it, see `signing`; by default
                `REMOTE_CKPT_SIGNING_KEY`, if that is set.

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
    def _archive(self) -> Archive:
        return Archive(self.store.within(PATIENCE), self.location)

    def __repr__(self) -> str:
        return f"Run({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Return what was given, for a copy or a pickle: the store is opened anew. A signing key is in no pickle."""
        return {**vars(self), "_store": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Run:
        return copy.copy(self)  # what was given is never changed, and may hold what cannot be copied

    # Reading

    def manifest(self) -> Manifest:
        """Return the manifest as it is now; an empty one while the run holds nothing.

        Of a long run it has only the recent past, with the best and the latest; `series` has it all.

        Raises:
            ManifestError: It cannot be read, or its signature is not right.
            StoreError: The store refused.
        """
        return self._committer(PATIENCE).load()

    @property
    def series(self) -> dict[str, Series]:
        """The run's series by filename template, all their past included; with a template in the URL, that one alone.

        Raises:
            ManifestError: The manifest, or older records that it speaks of, cannot be read.
            StoreError: The store refused.
        """
        return self._reading(lambda manifest: self._whole(self._chosen(manifest)))

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints, in the order of their capture; those whose objects were found missing are marked so."""
        records = [record for series in self.series.values() for record in series.checkpoints]
        return by_capture(records)

    @property
    def best(self) -> Checkpoint | None:
        """The best checkpoint; None when there is none, or none has a score: then no one is the best."""
        return next(iter(self._candidates("best", fallback=False)), None)

    @property
    def latest(self) -> Checkpoint | None:
        """The checkpoint captured last, whenever it was committed; or None."""
        return next(iter(self._candidates("latest", fallback=False)), None)

    def find(self, which: Which = "best") -> Checkpoint:
        """Return the checkpoint that `which` names: `"best"`, `"latest"`, an epoch (0-based int) or an id.

        Of several of one epoch, the latest.

        Raises:
            NoCheckpointError: There is no such checkpoint.
        """
        found = next(self._candidates(which, fallback=False), None)
        if found is None:
            raise self.nothing(which)
        return found

    def nothing(self, which: Which | None = None) -> NoCheckpointError:
        """Return the error that says what is missing (None: any checkpoint), and where it may be. Looks once more."""
        manifest = self.manifest()
        chosen = self._chosen(manifest)
        left: list[str] = []
        if not any(one.checkpoints or one.segments for one in chosen.values()):
            with contextlib.suppress(StoreError):  # it is another error's message
                left = self.unnamed()
        told = no_checkpoint(self.location, manifest, len(self.pending()), which, len(left))
        return NoCheckpointError(told)

    def unnamed(self) -> list[str]:
        """Return the keys of objects that look like this run's checkpoints and that its manifest has never named.

        With a filename template in the URL, of those that it may have named. At most `unnamed.MOST` objects are looked
        at. A checkpoint that is being uploaded is among them until it is committed.

        Raises:
            ManifestError: The manifest cannot be read.
            StoreError: The store refused.
        """
        found = unnamed(self.store.within(PATIENCE), self.location, self.manifest())
        return sorted(one.key for objects in found.values() for one in objects)

    def inspect(self) -> dict[str, Series]:
        """Return the run's series, with each record marked as missing whose object is not there now.

        Lists the run; who may not list it gets the marks that the manifest has.

        Raises: as `series`.
        """
        presence = Presence(self.store.within(PATIENCE))
        found = self.series
        try:
            lost = presence.absent([record for one in found.values() for record in one.checkpoints])
        except AccessDeniedError:
            return found
        there = {record.id for one in found.values() for record in one.checkpoints if record.missing} - lost
        return {
            name: one.marked(lost, missing=True).marked(there, missing=False) if lost or there else one
            for name, one in found.items()
        }

    def pull(
        self, which: Which = "best", to: str | os.PathLike[str] | None = None, *, progress: Progress | None = None
    ) -> Path:
        """Bring a checkpoint to the local disk, verified against its digest.

        Args:
            which: `"best"`, `"latest"`, an epoch (0-based int) or an id.
            to: A file, which is replaced; or an existing folder, in which nothing is: the name comes from the bucket.
                By default the file stays in the cache.
            progress: Told of each range.

        Returns:
            The file. In the cache it must not be changed, and is sure to stay for ten minutes only: open it soon, or
            name a file of your own by `to`.

        Raises:
            NoCheckpointError: There is no such checkpoint.
            CorruptCheckpointError: None that would do is intact.
            LocationError: The folder holds another file of the checkpoint's name.
        """
        checkpoint, held = self.intact(which, progress)
        with held:
            if to is None:
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

        Every array of the checkpoint and every weight of the model is accounted for before anything is assigned. A
        best (or latest) that is missing or corrupt is passed over with a warning, and the one before it is loaded. An
        optimizer whose state does not fit is left as it is, and one warning gives the reason.

        Args:
            model: Built: called once on data, or begun with an `Input`.
            which: `"best"`, `"latest"`, an epoch (0-based int) or an id.
            strict: False loads the layers that fit and leaves the others as they are (transfer learning).
            optimizer: False leaves the optimizers alone.

        Returns:
            The checkpoint that was loaded; with `strict=False` a `Restored`, which also has what was and was not taken.

        Raises:
            NoCheckpointError: There is no such checkpoint.
            CorruptCheckpointError: None that would do is intact; the model is untouched.
            ArchitectureError: The model lacks weights that the checkpoint has, or the reverse; with `strict=False`,
                nothing fits. The model is as it was. It is a `ValueError`.
        """
        from remote_ckpt.run.loading import restore

        restored = restore(self, model, which, strict=strict, optimizer=optimizer)
        return restored.checkpoint if strict else restored

    def watch(self, poll: float = 10.0) -> Iterator[Checkpoint]:
        """Yield the best checkpoint, then each new best, forever; looks every `poll` seconds."""
        seen: str | None = None
        while True:
            best = self.best
            if best is not None and best.id != seen:
                seen = best.id
                yield best
            time.sleep(poll)

    def verify(self, which: Which | None = None, *, progress: Progress | None = None) -> Iterator[Verdict]:
        """Download checkpoints and compare them with what was recorded; all of them, or the one that `which` names."""
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
            monitor: The metric that decides.
            mode: `"min"`, `"max"`, or `"auto"` to go by the words of the metric's name, see `metric_names`.
            **options: See `writer.SeriesOptions`: `save_best_only`, `keep_best`, `keep_last`, `threshold`, `on_error`;
                and `spool_limit` in bytes.

        Raises:
            LocationError: The template cannot be used.
            DirectionError: The mode is "auto", and the words of the name decide nothing.
            ValueError: The mode is none of these.
            ManifestError: What is there is not a manifest we can read.
            StoreError: The store cannot be read.
        """
        from remote_ckpt.writer import SeriesOptions, Writer

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
        """Make a file that exists already a checkpoint of the run; the best, if its score is.

        It joins the series that the URL names by its template, else the one of its kind; where there is none, one
        called `pushed-{epoch:02d}` is begun. When the file was written counts as the time of its capture, so an old
        one does not become the latest, and retention counts it among the old ones. Nothing is overwritten, and
        nothing is pruned. Repeating changes nothing, and goes on where an upload broke off.

        Args:
            path: A `.weights.h5`, `.keras` or `.h5` file; it is copied, and must not change meanwhile.
            score: What it reached.
            epoch: 0-based; by default the one after the checkpoint that was captured last before the file was written.
            monitor: The metric that the score is of; by default the one that the run is judged by, else `val_loss`.
            mode: `"min"`, `"max"`, or `"auto"`: as the run has it, or as the metric's name says.
            logs: Other metrics, for the filename template and the record.
            progress: Told of each part.

        Raises:
            CorruptCheckpointError: The file is damaged, not safe to load, or changed meanwhile.
            DirectionError: The mode is "auto", and neither the run nor the words of the name decide.
            ValueError: The mode is none of these, or the score is no number.
            LocationError: It is no such file; or the run has several series that it could join, or judges by another
                metric.
            ManifestError: The manifest cannot be read, or not be written without its key.
            StoreError: The store refused. The checkpoint waits in the spool: push again, or `recover`.
        """
        from remote_ckpt.run.push import Facts, push

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
        """Record what lies in the run and its manifest does not name: after the manifest was lost, or put back too old.

        Segments of older records give whole records. Of all else the object is read: its size and digests are what they
        are, its epoch comes from its name, and it has no score. With a filename template in the URL, objects that it
        may have named are recorded under it; without one, a template is guessed from their names. What the manifest
        names is left as it is, and no object is changed. Repeating changes nothing.

        Args:
            monitor: What the scores of the segments' records are of, where several logs could be it.
            mode: `"min"`, `"max"`, or `"auto"`: as the metric's name says.
            dry_run: Only return what would be recorded; objects are read all the same.
            progress: Called with the bytes of each range.

        Returns:
            What was recorded, in the order of its capture; nothing if the manifest names all.

        Raises:
            ValueError: The mode is none of these, or is not known of the metric's name.
            ManifestError: There is a manifest that cannot be read: move it away first. Or several logs could be what
                the scores are of.
            StoreError: The store refused.
        """
        from remote_ckpt.run.rebuilding import Judge, rebuild

        judge = Judge(monitor, None if mode == "auto" else _direction("", mode))
        return rebuild(self.location, self._committer(), judge, dry_run=dry_run, progress=progress)

    def prune(
        self, keep_best: int | None = None, keep_last: int | None = None, *, dry_run: bool = False
    ) -> list[Checkpoint]:
        """Delete checkpoints beyond the rules; the best and the latest of each series always stay.

        Returns:
            What was deleted, or would be.
        """
        gone: list[Checkpoint] = []

        def change(manifest: Manifest) -> Manifest:
            gone.clear()
            changed = manifest
            for template, series in self._whole(self._chosen(manifest)).items():
                pruned, lost = series.pruned(keep_best, keep_last)
                if lost:
                    gone.extend(lost)
                    changed = changed.with_series(template, pruned)
            return manifest if dry_run else changed

        committer = self._committer()
        manifest = committer.change(change)
        if not dry_run:
            delete_pruned(committer, manifest, gone)
        return gone

    def sweep(self, older_than: timedelta = ORPHAN_AGE, *, dry_run: bool = False) -> list[str]:
        """Delete what nothing names any more, and this run's unfinished uploads.

        That is what lies under the hidden folder, and objects that the manifest has named once: who is killed between
        pruning and deleting leaves them. Only what is older than `older_than`. What no manifest ever named, beside the
        manifest, is left alone, whoever put it there; so is everything where there is no manifest, and an unfinished
        upload to a key that no series of the run can have. The manifest is read again before each deletion.

        Returns:
            The keys that were deleted, or would be.
        """
        committer = self._committer()
        waiting = {entry.record.series for entry in self.pending()}
        templates = waiting | ({self.location.template} if self.location.template else set())
        return sweep_orphans(committer, older_than, dry_run=dry_run) + sweep_uploads(
            committer, templates, older_than, dry_run=dry_run
        )

    def pending(self) -> list[Entry]:
        """Return what waits in this machine's spool for this run, on the server that it is on."""
        return self._spool().waiting()

    def elsewhere(self) -> list[str]:
        """Return sentences about what waits in this machine's spool under this URL for other servers."""
        return elsewhere.sentences(self._spool())

    def recover(self, *, progress: Progress | None = None) -> list[Checkpoint]:
        """Upload and commit what dead processes left in this machine's spool; what living ones have stays theirs.

        What was sealed for another server under the same URL stays where it is. What an earlier version sealed, which
        did not note the server, is uploaded to this one.

        Returns:
            The checkpoints that are in the bucket now.

        Raises:
            StoreError: The store refused one of them, or all; what was not uploaded is still in the spool.
            CorruptCheckpointError: What waited was damaged on the local disk, and was dropped.
            SaveFailedError: Several failed, for different reasons. Each is named, whatever the class; the others are
                uploaded, unless the run itself cannot be written to.
        """
        recovery = self.recovery(progress=progress)
        recovery.check()
        return recovery.done

    def recovery(self, *, progress: Progress | None = None) -> Recovery:
        """Do what `recover` does, and return how it went instead of raising what failed."""
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
        """Return series in which what was missing counts again if it is there; looks only where any is marked."""
        presence = Presence(self.store.within(PATIENCE))
        return {name: presence.looked_for(series) for name, series in chosen.items()}

    def _reading(self, use: Callable[[Manifest], T]) -> T:
        """Return what `use` makes of the manifest, see `Committer.reading`."""
        return self._committer(PATIENCE).reading(use)

    def _candidates(self, which: Which, *, fallback: bool = True) -> Iterator[Checkpoint]:
        """Yield the checkpoints that would do, the wanted one first; older records are read when it comes to them."""
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
            yield from sorted(ordered, key=lambda record: record.missing)  # who asks for them gets the reason

    def intact(self, which: Which, progress: Progress | None = None) -> tuple[Checkpoint, CachedFile]:
        """Return the wanted checkpoint, downloaded and verified; else the next that would do, with a warning."""
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
                if again:  # a writer may have pruned it meanwhile: then the manifest names another one by now
                    break
                log.warning("Passing over epoch %d: %s", checkpoint.epoch + 1, problem)
        if problem is None:
            raise self.nothing(which)
        raise CorruptCheckpointError(
            f"No intact checkpoint ({which}) in {self.url}; the last problem: {problem}"
        ) from problem


def _ordered(which: Which, series: Mapping[str, Series], records: list[Checkpoint]) -> list[Checkpoint]:
    """Return the records with the better, or the later, ones first; without a score none is better than another.

    To have a best, series must be judged alike; one in which nothing has a score counts for nothing.
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
