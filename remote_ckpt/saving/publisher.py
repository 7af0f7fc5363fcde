"""Publish a sealed checkpoint: upload, commit, renew the alias, prune, drop. For writers, recovery and push."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

from remote_ckpt.errors import (
    LocationError,
    ManifestError,
    ObjectNotFoundError,
    PreconditionFailedError,
    SaveFailedError,
    StoreError,
)
from remote_ckpt.location import HIDDEN, Location, NameTemplate
from remote_ckpt.manifest import Commit, Committer
from remote_ckpt.manifest.deletion import Deleter, object_of
from remote_ckpt.progress import Meter
from remote_ckpt.records import Checkpoint, Manifest
from remote_ckpt.saving.attempts import Attempts, Made
from remote_ckpt.saving.failure_scope import Blame, blame
from remote_ckpt.saving.spool import SpoolEntry
from remote_ckpt.stores.base import DeltaBase, Digests, ObjectInfo, ObjectStore, Progress, TransferReport

log = logging.getLogger("remote_ckpt")

_ADOPTED = timedelta(hours=12)  # half of what a sweep waits before it takes an object for an orphan
_NAMES = 8  # names tried: as formatted, then with six random characters of the id, then with these and a number
_LONG = 300.0  # seconds; S3 dates an object sent in parts by the beginning of its upload, and a sweep uses that date


def object_key(template: NameTemplate, formatted: str, checkpoint_id: str) -> str:
    """Return the formatted name; if the template has no fields, a name with the id, under the hidden folder."""
    if template.fields:
        return formatted
    return f"{HIDDEN}/{NameTemplate.with_suffix_before_extension(formatted, checkpoint_id)}"


@dataclass
class Publisher:
    """A publisher of a run's sealed checkpoints. For a single thread at a time."""

    store: ObjectStore
    location: Location
    committer: Committer
    _checked: bool = False
    _attempts: dict[str, Attempts] = field(default_factory=dict)  # by id, of what is not in the bucket yet

    def publish(self, entry: SpoolEntry, report: TransferReport, progress: Progress | None = None) -> Commit:
        """Upload and commit a sealed checkpoint, then drop the checkpoint from the spool.

        Repeating is safe at any point, also by another process after a crash. After an error the entry is still in the
        spool, the bucket is readable, and the manifest names only complete objects.

        Args:
            entry: An entry from `Spool.seal` or `Spool.adopt`.
            report: Counts bytes and retries while the upload goes on.
            progress: Called with the bytes of each part sent.

        Returns:
            The commit. Its `problem` is set if the alias could not be renewed.

        Raises:
            StoreError: The store refused, or did not answer in time.
            CommitConflictError: Other writers won every round.
            CommitOutcomeUnknownError: The checkpoint may be visible; publishing again finds out.
            LocationError: The name and all others tried are taken.
            ManifestError: The manifest cannot be read, or has no room for the record; it was not changed.
        """
        self._check_store()
        record, begun = entry.record, time.monotonic()
        attempts = self._attempts.setdefault(record.id, Attempts(entry.journal))
        again = entry.recovered or attempts.any
        if again and self.committer.knows(record):  # committed before a crash or a lost answer: send nothing again
            commit = self.committer.commit(record, entry.terms, entry.blocks)
        else:
            record = self._upload(entry, report, progress)
            commit = self._commit(record, entry, attempts)
            # A sweep may have taken an object this old for an orphan, between its look at the manifest and our commit.
            is_old = again or time.monotonic() - begun > _LONG
            if is_old and self._was_swept(record.key):
                log.warning("%s was deleted before its commit: sending it again.", self.location.url(record.key))
                self._send(record.key, entry, report, progress)
        if commit.series.alias:
            commit = replace(commit, problem=self._shown(commit, record))
        self._delete(commit.pruned, commit.manifest)
        try:
            entry.drop()
        except OSError as exc:  # a later process finds the seal, sees the record in the manifest, and drops again
            log.warning("%s is uploaded, and cannot be removed from the spool: %s", entry.path, exc)
        del self._attempts[record.id]
        return commit

    def _commit(self, record: Checkpoint, entry: SpoolEntry, attempts: Attempts) -> Commit:
        """Commit a record. After a failure, note the object in the journal, so that no bytes are sent again."""
        try:
            return self.committer.commit(record, entry.terms, entry.blocks)
        except BaseException:  # Ctrl-C too: the bytes are in the bucket, and another process may publish next
            attempts.keep()
            raise

    def _check_store(self) -> None:
        """Probe the store before the first write, and log missing guarantees as warnings."""
        if not self._checked:
            for note in self.store.probe().notes:
                log.warning("%s: %s", self.location.name, note)
            self._checked = True

    def _upload(self, entry: SpoolEntry, report: TransferReport, progress: Progress | None) -> Checkpoint:
        """Create the object, unless an earlier attempt has made the object; if the name is taken, try the next name.

        In a store that keeps no owners, equal bytes under the name count as our own upload whose answer was lost. They
        may equally be another writer's object, which that writer's retention will delete. So the first attempt with a
        name checks before the upload that the name is free.
        """
        record = entry.record
        self.committer.require_room(record.series)
        attempts = self._attempts[record.id]
        if attempts.made is not None and self._is_there(attempts.made, record):
            return self._at(attempts.made, record)
        for attempt in range(_NAMES):
            key = record.key
            if attempt:
                extra = record.id[-6:] if attempt == 1 else f"{record.id[-6:]}-{attempt}"
                key = NameTemplate.with_suffix_before_extension(key, extra)
            if not self._is_usable(key, attempts):
                continue
            try:
                return self._at(self._send(key, entry, report, progress), record)
            except PreconditionFailedError:  # another writer took the name after our look
                attempts.forget(key)
                log.info("%s is taken; choosing another name.", self.location.url(key))
        raise LocationError(f"{self.location.url(record.key)} and {_NAMES - 1} names like it are taken.")

    def _send(self, key: str, entry: SpoolEntry, report: TransferReport, progress: Progress | None) -> Made:
        attempts = self._attempts[entry.record.id]
        attempts.begin(key)  # before the first request: after a crash, the object under `key` may be ours
        found = self.store.upload(
            key,
            entry.path,
            digests=entry.digests,
            journal=attempts.upload,
            report=report,
            base=self._base(entry),
            progress=Meter(f"Uploading {self.location.url(key)}", entry.record.size, progress),
            owner=entry.record.id,
        )
        attempts.made = Made(key=key, version=found.version, time=datetime.now(timezone.utc))
        return attempts.made

    def _at(self, made: Made, record: Checkpoint) -> Checkpoint:
        """Return a record completed with the key, URL and time of the uploaded object."""
        known = {"key": made.key, "url": self.location.url(made.key), "uploaded": made.time}
        return record.model_copy(update=known)

    def _is_there(self, made: Made, record: Checkpoint) -> bool:
        try:
            found = self.store.stat(made.key)
        except ObjectNotFoundError:
            return False
        return found.version == made.version and found.owner in (None, record.id) and _is_young(found)

    def _base(self, entry: SpoolEntry) -> DeltaBase | None:
        """Return an identical object of the series, else the object committed last, else None.

        Identical means of equal size and SHA-256. The last object is not compared here: the store finds equal blocks.
        The manifest may be stale; a base that has vanished costs time only.
        """
        digests = entry.digests
        series = self.committer.recall().of(entry.record.series)
        if series is None:
            return None
        for record in reversed(series.checkpoints):
            if (record.size, record.sha256) == (digests.size, digests.sha256):
                return DeltaBase(record.key, digests)
        blocks = series.base
        last = next((record for record in series.checkpoints if blocks and record.id == blocks.id), None)
        if blocks is None or last is None:
            return None
        return DeltaBase(last.key, Digests(last.size, last.sha256, last.crc32c, blocks.each))

    def _is_usable(self, key: str, attempts: Attempts) -> bool:
        """Return whether to upload to `key`: the key is free, or an earlier attempt may have made the object there.

        Such an object must be young: an old one may be deleted by a sweep at this moment.
        """
        try:
            found = self.store.stat(key)
        except ObjectNotFoundError:
            return True
        return attempts.tried(key) and _is_young(found)

    def _is_free(self, key: str) -> bool:
        try:
            self.store.stat(key)
        except ObjectNotFoundError:
            return True
        return False

    def _shown(self, commit: Commit, record: Checkpoint) -> Exception | None:
        """Renew the alias; return the error if the store refuses. The checkpoint is in the bucket in any case.

        An error that will pass is raised: then the entry is published again, which sends no bytes again.
        """
        try:
            self._show(commit, record.series)
        except (StoreError, ManifestError) as exc:
            if blame(exc, self.committer) is Blame.RUN:
                raise
            return SaveFailedError(
                f"{self.location.url(record.series)} could not be renewed; the checkpoint itself is in the bucket, as "
                f"{record.url or self.location.url(record.key)}, and the next one tries again. {exc}"
            )
        return None

    def _was_swept(self, key: str) -> bool:
        """Return whether an object named by the manifest is absent, deleted by a sweep just before the commit."""
        return self._is_free(key) and key in self.committer.archive.keys(self.committer.load())

    def _show(self, commit: Commit, name: str) -> None:
        """Copy the best (or the latest, see `Series.shown`) to the series' fixed name, in the store.

        The copies of two writers may take effect in the wrong order. So each writer reads the manifest again after its
        copy: the writer that copies last then sees the commit of the other, which came before the other's copy. A
        manifest older than our own commit was deleted or put back, and has nothing newer to show.
        """
        series, shown = commit.series, ""
        while (target := series.shown) is not None and target.id != shown:
            try:
                self.store.copy(target.key, name)
                shown = target.id
            except ObjectNotFoundError:
                shown = ""  # another writer has pruned it since: read the manifest again
            manifest = self.committer.load()
            again = manifest.of(name)
            if manifest.revision < commit.manifest.revision:
                return
            if again is None or (not shown and again.shown == target):
                return
            series = again
        if not series.alias_seen:  # from now on, an absent fixed name means that the user deleted it
            self.committer.change(lambda manifest: _with_alias_seen(manifest, name))

    def _delete(self, pruned: tuple[Checkpoint, ...], manifest: Manifest) -> None:
        """Delete the objects of pruned records. After a failure, log a warning; a later sweep may delete the object."""
        deleter = Deleter(self.committer, manifest)
        for record in pruned:
            try:
                deleter.delete(record.key, object_of(record))
            except (StoreError, ManifestError) as exc:
                log.warning("Could not delete %s, which is no longer needed: %s", self.location.url(record.key), exc)


def _is_young(found: ObjectInfo) -> bool:
    return found.modified is None or found.modified > datetime.now(timezone.utc) - _ADOPTED


def _with_alias_seen(manifest: Manifest, name: str) -> Manifest:
    series = manifest.of(name)
    if series is None or series.alias_seen:
        return manifest
    return manifest.with_series(name, series.model_copy(update={"alias_seen": True}))
