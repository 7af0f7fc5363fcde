"""The memory of a writer: the manifest seen last, to restore records lost from the manifest in the store.

A history only grows: each commit adds an entry, and pruning removes no entry. So if a manifest lacks an entry that this
writer has seen, the manifest was removed, replaced by an older version, or copied incompletely by somebody else. Then
the manifest in the store and the remembered one are joined, by a pure function within the compare-and-swap. The result
has all records of both, except those that one of them pruned. Several writers may each do this: records that are
already there are not changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from remote_ckpt.manifest.presence import Presence
from remote_ckpt.manifest.segment_store import SegmentStore
from remote_ckpt.policy import is_better
from remote_ckpt.records import Checkpoint, Manifest, Series

REBUILT = "rebuild"
"""The `writer` of a record made from an object alone by `rebuild`. The original record holds more, and replaces it."""


@dataclass
class Memory:
    """The manifest seen last by a writer, and the last record committed to each series. Threads: one at a time."""

    seen: Manifest = field(default_factory=Manifest)
    newest: dict[str, Checkpoint] = field(default_factory=dict)

    def see(self, manifest: Manifest) -> None:
        """Remember a manifest without losses. An older revision than the remembered one is ignored."""
        # Never go back to an older revision: it has fewer entries than those already seen.
        if manifest.revision >= self.seen.revision:
            self.seen = manifest

    def committed(self, record: Checkpoint) -> None:
        """Remember a record after its commit."""
        self.newest[record.series] = record

    def loss(self, manifest: Manifest, archive: SegmentStore) -> str | None:
        """Return a description of the loss, for the log; None if the manifest has everything seen by this writer.

        Read segments only if this writer's newest record, or the best seen, is not in the loaded history: other writers
        may have committed so much that it has moved to a segment.

        Raises:
            StoreError: The store refused.
        """
        seen = self.seen
        if not seen.series:
            return None
        if not manifest.series:
            return "has vanished"
        if manifest.revision < seen.revision:
            return f"was put back from an older version (revision {manifest.revision} after {seen.revision})"
        unknown = any(not _knows(manifest, record, archive) for record in self.newest.values())
        if unknown or any(_is_worse(manifest.of(name), one, archive) for name, one in seen.series.items()):
            return "was replaced by one that lacks what was committed"
        return None

    def joined(self, manifest: Manifest, archive: SegmentStore, presence: Presence) -> Manifest:
        """Return the manifest with the lost records put back; records without an object are marked as missing.

        Records from readable segments are put back too; their objects are not looked for.

        Raises:
            StoreError: The store refused.
        """
        series: dict[str, Series] = dict(manifest.series)
        for name, before in self.seen.series.items():
            now = manifest.of(name)
            past = archive.rescued(name, before)
            present = archive.rescued(name, now) if now else past.with_past((), ())
            if now is None or _lacks(present, past):
                series[name] = _join(past, present, presence, {record.id for record in before.checkpoints})
        # Above both: other writers that remember the higher revision would take a lower one for an old version.
        revision = max(manifest.revision, self.seen.revision) + 1
        extra = {**(self.seen.model_extra or {}), **(manifest.model_extra or {})}
        return manifest.model_copy(update={**extra, "series": series, "revision": revision})


def _knows(manifest: Manifest, record: Checkpoint, archive: SegmentStore) -> bool:
    series = manifest.of(record.series)
    return series is not None and archive.remembers(record.series, series, record)


def _is_worse(now: Series | None, before: Series, archive: SegmentStore) -> bool:
    """Return whether a series has lost the best checkpoint.

    A best that was pruned or deleted is no loss: its entry is still in the history.
    """
    if now is None:
        return True
    best, was = now.find("best"), before.find("best")
    if was is None or (now.monitor, now.mode) != (before.monitor, before.mode):
        return False
    worse = is_better(was.score, best.score if best else None, now.mode)
    return worse and not archive.remembers(was.series, now, was)


def _lacks(now: Series, before: Series) -> bool:
    """Return whether `now` lacks history entries of `before`, or still holds records pruned in `before`."""
    known = {entry.id for entry in now.history}
    held = {record.id for record in before.checkpoints}
    past = {entry.id for entry in before.history}
    return not past <= known or any(record.id in past - held for record in now.checkpoints)


def _join(before: Series, now: Series, presence: Presence, looked_for: set[str]) -> Series:
    """Return a series joined from two states: judged like `now`, with the records known only to `before` added."""
    past, known = {entry.id for entry in before.history}, {entry.id for entry in now.history}
    held = {record.id for record in before.checkpoints}
    own = {record.key: record.sha256 for record in before.checkpoints}
    staying = [
        record
        for record in now.checkpoints
        if record.id not in past - held
        and (record.writer != REBUILT or record.id in held or own.get(record.key) != record.sha256)
    ]
    keys = {record.key for record in staying}
    returning = [
        record
        for record in before.scored_by(now.monitor, now.mode).checkpoints
        if record.id not in known and record.key not in keys  # a key is used again only when its object is gone
    ]
    history = [*before.history, *(entry for entry in now.history if entry.id not in past)]
    place = {entry.id: number for number, entry in enumerate(history)}
    records = sorted([*returning, *staying], key=lambda record: place.get(record.id, -1))
    asked = [record for record in returning if record.id in looked_for]
    changes = {"alias": now.alias or before.alias, "alias_seen": now.alias_seen or before.alias_seen}
    whole = now.model_copy(update=changes).with_past(history, records)
    lost = presence.absent(asked)
    there = {record.id for record in asked if record.missing} - lost
    return whole.marked(lost, missing=True).marked(there, missing=False)
