"""What a writer remembers of its run, and puts back when the manifest no longer has it.

A manifest only ever grows: each commit adds to the history, and pruning leaves it as it is. So a manifest that lacks
what this writer has seen was removed, put back from an older version, or copied in halves by somebody else. Then the
present manifest and the remembered one are joined, as a pure function within the compare-and-swap: all that either of
them has, except what one of them knows to be pruned. Several writers may each do so; what is there already stays as it
is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from remote_ckpt.checkpoint import Checkpoint, Manifest, Series
from remote_ckpt.commit.archive import Archive
from remote_ckpt.commit.presence import Presence
from remote_ckpt.policy import is_better

REBUILT = "rebuild"
"""The writer of a record that was made from an object alone; whoever remembers the object's own record has more."""


@dataclass
class Memory:
    """The manifest as one writer saw it last, and what it committed last to each series. Threads: one at a time."""

    seen: Manifest = field(default_factory=Manifest)
    newest: dict[str, Checkpoint] = field(default_factory=dict)

    def see(self, manifest: Manifest) -> None:
        """Remember a manifest that lacks nothing."""
        if manifest.revision >= self.seen.revision:
            self.seen = manifest

    def committed(self, record: Checkpoint) -> None:
        """Remember that a record is in the manifest."""
        self.newest[record.series] = record

    def loss(self, manifest: Manifest, archive: Archive) -> str | None:
        """Return what happened to the manifest, or None if it has all that was seen.

        Reads a segment only where others have committed so much meanwhile that our newest record has moved to one.

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

    def joined(self, manifest: Manifest, archive: Archive, presence: Presence) -> Manifest:
        """Return the manifest with what was seen put back; records whose objects are not there are marked as missing.

        Of the older past, in segments, what can be read is put back, and taken for present.

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
        revision = max(manifest.revision, self.seen.revision) + 1
        extra = {**(self.seen.model_extra or {}), **(manifest.model_extra or {})}
        return manifest.model_copy(update={**extra, "series": series, "revision": revision})


def _knows(manifest: Manifest, record: Checkpoint, archive: Archive) -> bool:
    series = manifest.of(record.series)
    return series is not None and archive.remembers(record.series, series, record)


def _is_worse(now: Series | None, before: Series, archive: Archive) -> bool:
    """Return whether a series has lost the best that it had: not by deletion, which leaves the history as it is."""
    if now is None:
        return True
    best, was = now.find("best"), before.find("best")
    if was is None or (now.monitor, now.mode) != (before.monitor, before.mode):
        return False
    worse = is_better(was.score, best.score if best else None, now.mode)
    return worse and not archive.remembers(was.series, now, was)


def _lacks(now: Series, before: Series) -> bool:
    """Return whether one series' past has what another's has not, or holds what the other knows to be pruned."""
    known = {entry.id for entry in now.history}
    held = {record.id for record in before.checkpoints}
    past = {entry.id for entry in before.history}
    return not past <= known or any(record.id in past - held for record in now.checkpoints)


def _join(before: Series, now: Series, presence: Presence, looked_for: set[str]) -> Series:
    """Return two pasts of a series as one: judged as `now` is, with what only `before` knows put back."""
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
