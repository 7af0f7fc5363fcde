"""Rebuild a manifest from the objects in the run: from segments, and from the checkpoints themselves.

A segment holds whole records. No score is guessed: a score comes from a segment's record alone, because a name holds
the score rounded, or not at all. An epoch comes from the object's name. Objects without an epoch in their names are
counted in the order of their modification times.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path

from remote_ckpt.digests import digest_file
from remote_ckpt.errors import CorruptCheckpointError, ManifestError, ObjectNotFoundError, PreconditionFailedError
from remote_ckpt.location import HIDDEN, Location, NameTemplate
from remote_ckpt.manifest import Committer
from remote_ckpt.manifest.memory import REBUILT
from remote_ckpt.manifest.presence import Presence
from remote_ckpt.manifest.segment_store import MAX_TOTAL_BYTES
from remote_ckpt.policy import Mode, infer_mode
from remote_ckpt.records import MAX_MANIFEST_BYTES, Checkpoint, HistoryPoint, Manifest, Series
from remote_ckpt.records.readable import recordable
from remote_ckpt.run.naming import Naming, is_guess
from remote_ckpt.run.unnamed_objects import unnamed
from remote_ckpt.stores.base import ObjectInfo, Progress

log = logging.getLogger("remote_ckpt")

MOST_OBJECTS = 100_000
"""The most objects that a rebuild looks at, and the most segments."""


@dataclass
class Past:
    """The past of a series, as far as a rebuild found records and objects.

    Attributes:
        history: Entries by id. Some of their objects were pruned, or are gone.
        records: Records by id. Their objects are in the store.
    """

    history: dict[str, HistoryPoint] = field(default_factory=dict)
    records: dict[str, Checkpoint] = field(default_factory=dict)

    def add(self, record: Checkpoint) -> None:
        """Add a record and the entry of this record."""
        entry = HistoryPoint(
            id=record.id, key=record.key, epoch=record.epoch, score=record.score, created=record.created
        )
        self.records[record.id] = record
        self.history.setdefault(record.id, entry)


@dataclass(frozen=True)
class Judge:
    """The metric and the direction by which a series is judged, as far as the user has named them."""

    monitor: str | None = None
    mode: Mode | None = None

    def of(self, past: Past) -> tuple[str, Mode]:
        """Return monitor and mode: as given, else the log equal to the score in every record, else `val_loss`.

        Raises:
            ManifestError: Several logs equal the score in every record.
            ValueError: No mode was given, and the metric's name does not decide (`DirectionError`).
        """
        scored = [record for record in past.records.values() if record.score is not None]
        logs = [{name for name, value in record.logs.items() if value == record.score} for record in scored]
        fitting = set.intersection(*logs) if logs else set()
        if self.monitor is None and len(fitting) > 1:
            raise ManifestError(f"The scores may be of {' or '.join(sorted(fitting))}. Name the one (--monitor NAME).")
        monitor = self.monitor or next(iter(fitting), "val_loss")
        return monitor, self.mode or infer_mode(monitor)


def rebuild(
    location: Location, committer: Committer, judge: Judge, *, dry_run: bool = False, progress: Progress | None = None
) -> list[Checkpoint]:
    """Add the checkpoints in the run's objects to the run's manifest; see `Run.rebuild`."""
    manifest = committer.load(to_write=True)
    pasts = _of_segments(location, committer)
    taken = {record.key for past in pasts.values() for record in past.records.values()}
    for template, objects in unnamed(committer.store, location, manifest, most=MOST_OBJECTS).items():
        past = pasts.setdefault(template, Past())
        for record in _of_objects(location, committer, template, objects, taken, progress):
            past.add(record)
    added: list[Checkpoint] = []

    def change(manifest: Manifest) -> Manifest:
        added.clear()  # called once for each round: another writer's commit made the last round's result void
        changed = manifest
        for template, past in pasts.items():
            changed, more = _with_past(committer, changed, template, past, judge)
            added.extend(more)
        return manifest if dry_run else changed  # the same object back: nothing is written

    # The objects were read before the first round. Each round compares them with the manifest of that round, so a
    # checkpoint that another writer has recorded meanwhile is not added twice.
    committer.change(change)
    return sorted(added, key=lambda record: record.created)


def _of_segments(location: Location, committer: Committer) -> dict[str, Past]:
    """Return the pasts in all segments, by template.

    Segments that no manifest names are read too. A record is left out if its object is not there; its entry in the
    history stays. A segment that cannot be read is passed over, and logged.

    Raises:
        ManifestError: The segments take more than `MAX_TOTAL_BYTES`.
        StoreError: The store refused.
    """
    pasts: dict[str, Past] = {}
    room = MAX_TOTAL_BYTES
    for found in islice(committer.store.scan(f"{HIDDEN}/segments/"), MOST_OBJECTS):
        if (room := room - found.size) < 0:
            raise ManifestError(f"The segments of {location.name} take more than {MAX_TOTAL_BYTES} bytes.")
        try:
            data, _ = committer.store.read(found.key, limit=MAX_MANIFEST_BYTES)
            contents = committer.archive.parse(data, location.url(found.key))
        except (ManifestError, ObjectNotFoundError) as exc:  # broken, or deleted since the listing
            log.warning("Passing over a segment: %s", exc)
            continue
        if location.template in (None, contents.series):
            past = pasts.setdefault(contents.series, Past())
            past.history |= {entry.id: entry for entry in contents.history}
            past.records |= {record.id: record for record in contents.checkpoints}
    presence = Presence(committer.store)
    for past in pasts.values():
        for lost in presence.absent(list(past.records.values())):
            del past.records[lost]
    return pasts


def _of_objects(
    location: Location,
    committer: Committer,
    template: str,
    objects: Sequence[ObjectInfo],
    taken: set[str],
    progress: Progress | None,
) -> Iterator[Checkpoint]:
    """Yield records of objects, in the order of their epochs, then of their modification times.

    Each object is downloaded, one at a time, because its digests are needed. `created` rises strictly, so the order
    also decides which checkpoint is the latest. An object that is damaged, gone or changed is passed over, and logged.
    """
    naming = Naming.of(NameTemplate(template))
    begun = datetime.now(timezone.utc)
    wanted = [(naming.epoch(one.key), one.modified or begun, one) for one in objects if one.key not in taken]
    earliest = datetime.min.replace(tzinfo=timezone.utc)
    with tempfile.TemporaryDirectory(prefix="remote-ckpt-rebuild-") as folder:
        for number, (epoch, modified, one) in enumerate(sorted(wanted, key=lambda item: (item[0] or 0, item[1]))):
            target = Path(folder, f"object{NameTemplate(template).suffix}")
            try:
                committer.store.fetch(one.key, target, size=one.size, progress=progress)
                facts = _facts(one.key, target)
            except (CorruptCheckpointError, ObjectNotFoundError, PreconditionFailedError) as exc:
                # Damaged; or a writer deleted or replaced the object after the listing.
                log.warning("Passing over %s: %s", location.url(one.key), exc)
                continue
            earliest = max(modified, earliest + timedelta(microseconds=1))
            order = {"epoch": number if epoch is None else epoch, "created": earliest}
            place = {"series": template, "key": one.key, "url": location.url(one.key), "writer": REBUILT}
            yield recordable({**facts, **place, **order}, "")


def _facts(key: str, path: Path) -> dict[str, object]:
    """Check a downloaded object, and return the record's fields given by bytes and key.

    The id is made from key and digest, so a repeated rebuild gives the same id.

    Raises:
        CorruptCheckpointError: The bytes are not a checkpoint's.
    """
    from remote_ckpt.weights_file import check, check_keras_archive  # importing h5py takes a tenth of a second

    (check_keras_archive if path.suffix == ".keras" else check)(path)
    digests = digest_file(path)
    name = hashlib.sha256(f"{key}\n{digests.sha256}".encode()).hexdigest()[:16]
    return {"id": name, "size": digests.size, "sha256": digests.sha256, "crc32c": digests.crc32c}


def _with_past(
    committer: Committer, manifest: Manifest, template: str, past: Past, judge: Judge
) -> tuple[Manifest, list[Checkpoint]]:
    """Return the manifest joined with the past of a series, and the added records."""
    series = manifest.of(template)
    if series is None:
        monitor, mode = judge.of(past)
        series = Series(monitor=monitor, mode=mode)  # without an alias: the next writer says what a fixed name shows
    series = committer.archive.whole(template, series)
    known = {entry.id for entry in series.history}
    keys = {record.key for record in series.checkpoints}
    lines = sorted((e for e in past.history.values() if e.id not in known), key=lambda entry: entry.created)
    new = [one for line in lines if (one := past.records.get(line.id)) is not None and one.key not in keys]
    if not new:
        return manifest, []
    grown = series.with_past((*series.history, *lines), (*series.checkpoints, *new))
    return _without_guesses(manifest.with_series(template, grown), template, {one.key for one in new}), new


def _without_guesses(manifest: Manifest, template: str, keys: set[str]) -> Manifest:
    """Return the manifest without records with these keys under guessed templates, left by an earlier rebuild."""
    series: Mapping[str, Series] = manifest.series
    left = {
        name: one.without({record.id for record in one.checkpoints if record.key in keys})
        if is_guess(name) and name != template
        else one
        for name, one in series.items()
    }
    kept = {name: one for name, one in left.items() if one.checkpoints or not is_guess(name)}
    return manifest.model_copy(update={"series": kept})
