"""A run: what is in it, how to get it back, and how to keep it tidy."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from remote_ckpt import elsewhere
from remote_ckpt.cache import Cache
from remote_ckpt.checkpoint import Checkpoint, Manifest, Series, Which
from remote_ckpt.checkpoint.signing import Signer
from remote_ckpt.commit import Committer
from remote_ckpt.commit.archive import Archive
from remote_ckpt.errors import (
    CorruptCheckpointError,
    LocationError,
    NoCheckpointError,
    ObjectNotFoundError,
    RemoteCkptError,
)
from remote_ckpt.location import HIDDEN, MANIFEST_KEY, Location
from remote_ckpt.policy import Mode, best_first, infer_mode
from remote_ckpt.publish import Publisher, object_of
from remote_ckpt.run.giving import give
from remote_ckpt.run.hints import no_checkpoint
from remote_ckpt.spool import Entry, Spool
from remote_ckpt.stores import ObjectInfo, ObjectStore, Progress, Transfer, TransferReport, open_store, require_known
from remote_ckpt.urls import options_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from remote_ckpt.run.options import RunOptions, WriterOptions
    from remote_ckpt.writer import Writer

log = logging.getLogger("remote_ckpt")

PATIENCE = 30.0
"""Seconds that a reader waits for the manifest of a store that does not answer."""

ORPHAN_AGE = timedelta(days=1)
"""An object younger than this may belong to a commit that is still under way."""


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
        self._cache = Cache(cache_dir)
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
        return self._whole(self._chosen(self.manifest()))

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints, in the order of their capture."""
        records = [record for series in self.series.values() for record in series.checkpoints]
        return sorted(records, key=lambda record: record.created)

    @property
    def best(self) -> Checkpoint | None:
        """The best checkpoint, or None."""
        return next(iter(self._candidates("best", fallback=False)), None)

    @property
    def latest(self) -> Checkpoint | None:
        """The checkpoint captured last, or None."""
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
        return NoCheckpointError(no_checkpoint(self.location, self.manifest(), len(self.pending()), which))

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
            The file. In the cache it must not be changed.

        Raises:
            NoCheckpointError: There is no such checkpoint.
            CorruptCheckpointError: None that would do is intact.
            LocationError: The folder holds another file of the checkpoint's name.
        """
        checkpoint, path = self._intact(which, progress)
        if to is None:
            return path
        return give(path, Path(to).expanduser(), checkpoint)

    def load(self, model: Any, which: Which = "best") -> Checkpoint:
        """Load a checkpoint into a Keras model of the same architecture, optimizer included.

        A best (or latest) that is missing or corrupt is passed over with a warning, and the one before it is loaded.

        Returns:
            The checkpoint that was loaded.

        Raises:
            NoCheckpointError: There is no such checkpoint.
            CorruptCheckpointError: None that would do is intact; the model is untouched.
        """
        from remote_ckpt.run.restore import load_into

        checkpoint, path = self._intact(which, None)
        load_into(model, path, checkpoint.url)
        return checkpoint

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
            mode: `"min"`, `"max"`, or `"auto"` to go by the metric's name.
            **options: See `writer.SeriesOptions`: `save_best_only`, `keep_best`, `keep_last`, `threshold`, `on_error`;
                and `spool_limit` in bytes.

        Raises:
            LocationError: The template cannot be used.
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
        one does not become the latest. Nothing is overwritten, and nothing is pruned. Repeating changes nothing, and
        goes on where an upload broke off.

        Args:
            path: A `.weights.h5`, `.keras` or `.h5` file; it is copied, and must not change meanwhile.
            score: What it reached.
            epoch: 0-based; by default the one after the latest.
            monitor: The metric that the score is of; by default the one that the run is judged by, else `val_loss`.
            mode: `"min"`, `"max"`, or `"auto"`: as the run has it, or as the metric's name says.
            logs: Other metrics, for the filename template and the record.
            progress: Told of each part.

        Raises:
            CorruptCheckpointError: The file is damaged, not safe to load, or changed meanwhile.
            ValueError: The mode is none of these.
            LocationError: It is no such file; or the run has several series that it could join, or judges by another
                metric.
            ManifestError: The manifest cannot be read, or not be written without its key.
            StoreError: The store refused. The checkpoint waits in the spool: push again, or `recover`.
        """
        from remote_ckpt.run.push import Facts, push

        direction = None if mode == "auto" else _direction("", mode)
        facts = Facts(float(score), epoch, monitor, direction, dict(logs or {}))
        spool = self._spool()
        source = Path(path).expanduser()
        return push(source, facts, location=self.location, committer=self._committer(), spool=spool, progress=progress)

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
        if gone and not dry_run:
            named = committer.archive.keys(manifest)
            for checkpoint in gone:
                if checkpoint.key not in named:
                    self.store.delete_if(checkpoint.key, object_of(checkpoint))
        return gone

    def sweep(self, older_than: timedelta = ORPHAN_AGE, *, dry_run: bool = False) -> list[str]:
        """Delete what nothing names any more, and this run's unfinished uploads.

        That is what lies under the hidden folder, and objects that the manifest has named once: who is killed between
        pruning and deleting leaves them. Only what is older than `older_than`. What no manifest ever named, beside the
        manifest, is left alone, whoever put it there.

        Returns:
            The keys that were deleted, or would be.
        """
        present = list(self.store.scan())
        manifest = self.manifest()  # after looking, or what is committed meanwhile would pass for an orphan
        named = self._archive.keys(manifest) | {MANIFEST_KEY}
        once = {entry.key for name, one in manifest.series.items() for entry in self._archive.whole(name, one).history}
        limit = datetime.now(timezone.utc) - older_than

        def is_old(found: ObjectInfo) -> bool:
            return found.modified is not None and found.modified < limit

        orphans = [
            found.key
            for found in present
            if (found.key in once or found.key.startswith(f"{HIDDEN}/"))
            and found.key not in named
            and is_old(found)
            and not found.key.startswith(f"{HIDDEN}/spool/")
        ]
        if not dry_run:
            for key in orphans:
                self.store.delete_if(key, is_old)  # by now its name may be a new object's
        return orphans + self.store.sweep_uploads(older_than, dry_run=dry_run)

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
            StoreError: The store refused; what was not uploaded is still in the spool.
            CorruptCheckpointError: What waited was damaged on the local disk, and was dropped; all others are uploaded.
        """
        spool = self._spool()
        publisher = Publisher(self.store, self.location, self._committer())
        done: list[Checkpoint] = []
        damaged: CorruptCheckpointError | None = None
        try:
            for entry in spool.adopt(unnoted=True):
                try:
                    commit = publisher.publish(entry, TransferReport(), progress)
                except CorruptCheckpointError as exc:  # it must not hold up the others, now and for ever
                    damaged = exc
                    entry.drop()
                    continue
                done.append(commit.series.find(entry.record.id) or entry.record)
        finally:
            spool.close()
        if damaged is not None:
            raise damaged
        return done

    def _spool(self, limit: int | None = None) -> Spool:
        return Spool(self.location, self._spool_dir, limit, server=lambda: self.store.server)

    def _committer(self, patience: float | None = None) -> Committer:
        store = self.store if patience is None else self.store.within(patience)
        return Committer(store, self.location, signer=self.signer)

    def _chosen(self, manifest: Manifest) -> dict[str, Series]:
        template = self.location.template
        return {name: series for name, series in manifest.series.items() if template in (None, name)}

    def _whole(self, chosen: dict[str, Series]) -> dict[str, Series]:
        return {name: self._archive.whole(name, series) for name, series in chosen.items()}

    def _candidates(self, which: Which, *, fallback: bool = True) -> Iterator[Checkpoint]:
        """Yield the checkpoints that would do, the wanted one first; older records are read when it comes to them."""
        chosen = self._chosen(self.manifest())
        if which not in ("best", "latest"):
            found = [record for one in self._whole(chosen).values() if (record := one.find(which))]
            yield from sorted(found, key=lambda record: record.created, reverse=True)[:1]
            return
        first = next(iter(_ordered(which, chosen, [c for one in chosen.values() if (c := one.find(which))])), None)
        if first is not None:
            yield first
        if first is not None and fallback:
            records = [record for one in self._whole(chosen).values() for record in one.checkpoints]
            yield from (record for record in _ordered(which, chosen, records) if record.id != first.id)

    def _intact(self, which: Which, progress: Progress | None) -> tuple[Checkpoint, Path]:
        """Return the wanted checkpoint, downloaded and verified; else the next that would do, with a warning."""
        problem: RemoteCkptError | None = None
        passed: set[str] = set()
        again = True
        while again:
            again = False
            for number, checkpoint in enumerate(self._candidates(which)):
                try:
                    return checkpoint, self._cache.get(checkpoint, self.store, progress)
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
    """Return the records with the better, or the later, ones first. To have a best, series must be judged alike."""
    if which == "latest":
        return sorted(records, key=lambda record: record.created, reverse=True)
    judged = {(one.monitor, one.mode) for one in series.values() if one.checkpoints}
    if len(judged) > 1:
        named = ", ".join(sorted(f"{monitor} ({mode})" for monitor, mode in judged))
        raise LocationError(f"The run's series are judged by different metrics: {named}. Name one by its template.")
    return best_first(records, next(iter(judged))[1]) if judged else records


def _direction(monitor: str, mode: str) -> Mode:
    if mode == "auto":
        return infer_mode(monitor)
    if mode not in get_args(Mode):
        raise ValueError(f"mode is 'auto', 'min' or 'max'. Received: {mode!r}")
    return cast("Mode", mode)


def load_best(model: Any, url: str | os.PathLike[str], **options: Unpack[RunOptions]) -> Checkpoint:
    """Load the best checkpoint of a run into `model`; see `Run.load`. Options as for `Run`."""
    return Run(url, **options).load(model, "best")


def load_latest(model: Any, url: str | os.PathLike[str], **options: Unpack[RunOptions]) -> Checkpoint:
    """Load the latest checkpoint of a run into `model`; see `Run.load`. Options as for `Run`."""
    return Run(url, **options).load(model, "latest")
