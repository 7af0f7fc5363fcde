"""One sealed checkpoint's way into the bucket: upload, commit, drop, alias, prune. For writers and for recovery."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from remote_ckpt.checkpoint import Checkpoint, Manifest, Series
from remote_ckpt.commit import Commit, Committer
from remote_ckpt.errors import (
    CommitOutcomeUnknownError,
    LocationError,
    ManifestError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreError,
)
from remote_ckpt.location import HIDDEN, Location, Template
from remote_ckpt.progress import Meter
from remote_ckpt.spool import Entry
from remote_ckpt.stores.base import Base, Digests, ObjectInfo, ObjectStore, Progress, TransferReport, Version

log = logging.getLogger("remote_ckpt")

_NAMES = 8  # a formatted name can be taken; one with six random characters, eight times over, cannot


def object_key(template: Template, formatted: str, checkpoint_id: str) -> str:
    """Return the formatted name, or one under the hidden folder when every checkpoint would have the same."""
    if template.fields:
        return formatted
    return f"{HIDDEN}/{Template.with_suffix_before_extension(formatted, checkpoint_id)}"


def object_of(record: Checkpoint) -> Callable[[ObjectInfo], bool]:
    """Return a test of whether an object is the one that `record` names, for one deletion and its repetitions.

    Names are used again: once an object is deleted, another writer may give its name to a checkpoint of the same epoch.
    """
    first: Version | None = None

    def is_it(found: ObjectInfo) -> bool:
        nonlocal first
        first = first or found.version  # nobody can have replaced it before the first attempt
        known = found.crc32c in (None, record.crc32c)
        return known and (found.size, found.version) == (record.size, first)

    return is_it


@dataclass
class Publisher:
    """Publishes sealed checkpoints of one run, one at a time, from one thread."""

    store: ObjectStore
    location: Location
    committer: Committer
    _checked: bool = False

    def publish(self, entry: Entry, report: TransferReport, progress: Progress | None = None) -> Commit:
        """Bring a sealed checkpoint into the bucket and drop it from the spool.

        Repeating is safe at any point, also by another process after a crash. After an error the entry is still in the
        spool, the bucket is readable, and the manifest names only complete objects.

        Args:
            entry: What `Spool.seal` or `Spool.adopt` returned.
            report: Counts bytes and retries while the upload goes on.
            progress: Told of each part.

        Raises:
            StoreError: The store refused, or did not answer in time.
            CommitConflictError: Other writers won every round.
            CommitOutcomeUnknownError: It may be visible; publishing again finds out.
            ManifestError: The manifest cannot be read; nothing was changed.
        """
        self._check_store()
        record = entry.record
        if not (_tried_before(entry) and self.committer.knows(record)):
            record = self._upload(entry, report, progress)
        commit = self.committer.commit(record, entry.terms, entry.blocks)
        if commit.series.alias:
            self._show(commit.series, record.series)
        self._delete(commit.pruned, commit.manifest)
        try:
            entry.drop()
        except OSError as exc:
            log.warning("%s is uploaded, and cannot be removed from the spool: %s", entry.path, exc)
        return commit

    def _check_store(self) -> None:
        """Find out what the store does before the first write, and tell the user what it does not."""
        if not self._checked:
            for note in self.store.probe().notes:
                log.warning("%s: %s", self.location.name, note)
            self._checked = True

    def _upload(self, entry: Entry, report: TransferReport, progress: Progress | None) -> Checkpoint:
        """Create the object; when its name is taken, under the next name.

        A store takes equal bytes under the name for an upload of ours whose answer was lost. They may as well be
        another writer's, whose retention will delete them; so a first attempt looks before it begins.
        """
        record = entry.record
        tried_before, base = _tried_before(entry), self._base(entry)
        for attempt in range(_NAMES):
            key = record.key
            if attempt:
                extra = record.id[-6:] if attempt == 1 else f"{record.id[-6:]}-{attempt}"
                key = Template.with_suffix_before_extension(key, extra)
            if not (tried_before or self._is_free(key)):
                continue
            if not tried_before:
                entry.journal.save({"key": key})
            try:
                self.store.upload(
                    key,
                    entry.path,
                    digests=entry.digests,
                    journal=entry.journal,
                    report=report,
                    base=base,
                    progress=Meter(f"Uploading {self.location.url(key)}", record.size, progress),
                )
            except PreconditionFailedError:
                log.info("%s is taken; choosing another name.", self.location.url(key))
                continue
            known = {"key": key, "url": self.location.url(key), "uploaded": datetime.now(timezone.utc)}
            return record.model_copy(update=known)
        raise LocationError(f"{self.location.url(record.key)} and {_NAMES - 1} names like it are taken.")

    def _base(self, entry: Entry) -> Base | None:
        """Return the object that has most of the new one's bytes: all of them, or the series' last one."""
        digests = entry.digests
        series = self.committer.recall().of(entry.record.series)
        if series is None:
            return None
        for record in reversed(series.checkpoints):
            if (record.size, record.sha256) == (digests.size, digests.sha256):
                return Base(record.key, digests)
        blocks = series.base
        last = next((record for record in series.checkpoints if blocks and record.id == blocks.id), None)
        if blocks is None or last is None:
            return None
        return Base(last.key, Digests(last.size, last.sha256, last.crc32c, blocks.each))

    def _is_free(self, key: str) -> bool:
        try:
            self.store.stat(key)
        except ObjectNotFoundError:
            return True
        return False

    def _show(self, series: Series, name: str) -> None:
        """Copy the best (or the latest, see `Series.shown`) to the series' fixed name, in the store.

        Two writers' copies may land in the wrong order. So each looks at the manifest again after its copy, and the
        one that lands last sees what the other has committed before it copied.
        """
        shown: str | None = None
        while (target := series.shown) is not None and target.id != shown:
            try:
                self.store.copy(target.key, name)
                shown = target.id
            except ObjectNotFoundError:
                shown = None  # pruned by another writer meanwhile: the manifest names a newer one
            manifest = self.committer.load()
            again = manifest.of(name)
            if again is None or (shown is None and again.shown == target):
                return
            series = again
        if not series.alias_seen:
            self.committer.change(lambda manifest: _with_alias_seen(manifest, name))

    def _delete(self, pruned: tuple[Checkpoint, ...], manifest: Manifest) -> None:
        """Delete the objects of pruned records. What cannot be deleted stays, and is told."""
        for record in pruned:
            try:
                if record.key not in self.committer.archive.keys(manifest):
                    self.store.delete_if(record.key, object_of(record))
            except (StoreError, ManifestError, CommitOutcomeUnknownError) as exc:
                log.warning("Could not delete %s, which is no longer needed: %s", self.location.url(record.key), exc)


def _tried_before(entry: Entry) -> bool:
    """Return whether an upload of this entry may have begun already, here or in a process that died."""
    return entry.recovered or bool(entry.journal.load())


def _with_alias_seen(manifest: Manifest, name: str) -> Manifest:
    series = manifest.of(name)
    if series is None or series.alias_seen:
        return manifest
    return manifest.with_series(name, series.model_copy(update={"alias_seen": True}))
