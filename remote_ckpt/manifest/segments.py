"""Segments: the older history of a series in objects beside the manifest, to keep commits to long runs fast.

::

    <run>/.remote_ckpt/segments/<random>.json    {"series": …, "history": [40 entries], "checkpoints": [their records]}

The manifest names each segment with its digest. A segment is written before the commit that names it, under a name
that was never used, and is never changed. When a record in a segment is pruned, a new segment takes the place of the
old one. Ten segments become one of 400 entries, and ten of those become one of 4000; so the manifest names few. A
segment of a lost commit, and a segment that was replaced, is an orphan: `Run.sweep` deletes it.

A commit reads no segment, except when ten become one (once in 400 commits), or when it must look at old records: a
first commit under rules of retention or under another metric, a best that was deleted, or a checkpoint that may have
been committed long ago.

The functions here are pure; `archive` reads and writes.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Annotated

from pydantic import BaseModel, ConfigDict, FailFast

from remote_ckpt.errors import ManifestError
from remote_ckpt.location import HIDDEN
from remote_ckpt.policy import is_better
from remote_ckpt.records import MAX_MANIFEST_BYTES, Checkpoint, HistoryPoint, Manifest, Segment, Series

AT_HAND = 20
"""Fewest entries of the history that stay in the manifest, once there are so many; with their records."""

LENGTH = 40
"""Entries in the smallest segments. So the manifest holds 20 to 60 entries, which each commit sends and parses."""

SIZES = (100 * LENGTH, 10 * LENGTH, LENGTH)
"""Entries in a segment, largest first. 10,000 checkpoints need about ten segments."""

MAX_MERGED_BYTES = 16 << 20
"""Most bytes of a segment with more than `LENGTH` entries; large records stay in smaller segments."""


class Contents(BaseModel):
    """The content of a segment.

    Attributes:
        series: The filename template, for people.
        history: Entries in the order of their commits.
        checkpoints: The records of these entries that were not pruned. Sometimes also a record of an older entry, which
            stayed in the manifest longer because it was the best.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    series: str
    history: Annotated[tuple[HistoryPoint, ...], FailFast()]
    checkpoints: Annotated[tuple[Checkpoint, ...], FailFast()] = ()


def layout(entries: int) -> list[int]:
    """Return the sizes of the segments for a history of `entries` entries, oldest first; a rest is left out."""
    sizes: list[int] = []
    for size in SIZES:
        sizes += [size] * (entries // size)
        entries %= size
    return sizes


def ripe_entries(series: Series) -> int:
    """Return the number of loaded entries to move to segments."""
    return max(len(series.history) - AT_HAND, 0) // LENGTH * LENGTH


def merging(series: Series) -> tuple[Segment, ...]:
    """Return the latest segments to merge into larger ones, together with the entries to move now; often none."""
    if not (ripe := ripe_entries(series)):
        return ()
    there = [segment.entries for segment in series.segments]
    sizes = layout(sum(there) + ripe)
    same = next((n for n, pair in enumerate(zip(there, sizes, strict=False)) if pair[0] != pair[1]), len(there))
    last = series.segments[same:]
    return last if sum(segment.size for segment in last) <= MAX_MERGED_BYTES else ()


def thawed(series: Series, contents: Iterable[Contents]) -> Series:
    """Return a series with the contents of its segments loaded, in the order of the commits, without segments.

    Raises:
        ValueError: Two entries or two records have the same id.
    """
    older = list(contents)
    history = [*(entry for one in older for entry in one.history), *series.history]
    records = [*(record for one in older for record in one.checkpoints), *series.checkpoints]
    place = {entry.id: number for number, entry in enumerate(history)}
    if len(place) != len(history) or len({record.id for record in records}) != len(records):
        raise ValueError("two checkpoints have one id")
    records.sort(key=lambda record: place.get(record.id, -1))
    return series.model_copy(update={"history": tuple(history), "checkpoints": tuple(records), "segments": ()})


def frozen(
    template: str, series: Series, known: Mapping[str, Segment], *, hold: bool
) -> tuple[Series, dict[str, bytes]]:
    """Move all but the recent past of a series to segments.

    Args:
        template: The series' name.
        series: A series with segments, or with its whole history loaded. The segments returned by `merging` should be
            loaded already.
        known: Segments that are in the store, by digest: these are not written again.
        hold: Whether all records stay in the manifest, because retention looks at each of them in each commit.

    Returns:
        The series for the manifest, and the objects to write before it, by key.

    Raises:
        ManifestError: The records of a segment take more bytes than a reader accepts.
    """
    if not (ripe := ripe_entries(series)):
        return series, {}
    place = {entry.id: number for number, entry in enumerate(series.history)}
    kept: list[Checkpoint] = []
    leaving: list[tuple[int, Checkpoint]] = []
    for record in series.checkpoints:
        number = place.get(record.id, 0)  # a record that was the best for long may be older than all loaded entries
        if hold or number >= ripe or record.id in (series.best, series.latest) or _may_return(record, series):
            kept.append(record)
        else:
            leaving.append((number, record))
    segments, objects = list(series.segments), {}
    sizes = _sizes(series, ripe)
    for end, size in zip(accumulate(sizes), sizes, strict=True):
        records = [record for number, record in leaving if end - size <= number < end]
        for segment, data in _cut(template, series.history[end - size : end], records):
            if segment.sha256 not in known:
                objects[segment.key] = data
            segments.append(known.get(segment.sha256, segment))
    changes = {"history": series.history[ripe:], "checkpoints": tuple(kept), "segments": tuple(segments)}
    return series.model_copy(update=changes), objects


def segments_of(manifest: Manifest) -> dict[str, Segment]:
    """Return a manifest's segments by digest."""
    return {segment.sha256: segment for _, segment in named_segments(manifest)}


def named_segments(manifest: Manifest) -> list[tuple[str, Segment]]:
    """Return all segments of a manifest, each with the name of the series."""
    return [(template, segment) for template, series in manifest.series.items() for segment in series.segments]


def _may_return(record: Checkpoint, series: Series) -> bool:
    """Return whether a missing record would be the best: each commit looks whether its object is there again."""
    best = series.find("best")
    return record.missing and is_better(record.score, best.score if best else None, series.mode)


def _sizes(series: Series, ripe: int) -> list[int]:
    """Return the sizes of the new segments for `ripe` entries.

    If the existing segments are the first ones of the layout, the sizes are those of the rest of the layout; else each
    new segment has `LENGTH` entries.
    """
    there = [segment.entries for segment in series.segments]
    sizes = layout(sum(there) + ripe)
    return sizes[len(there) :] if sizes[: len(there)] == there else [LENGTH] * (ripe // LENGTH)


def _cut(
    template: str, history: Sequence[HistoryPoint], records: Sequence[Checkpoint]
) -> Iterator[tuple[Segment, bytes]]:
    """Yield a segment with these entries and records, or several smaller segments if too large."""
    contents = Contents(series=template, history=tuple(history), checkpoints=tuple(records))
    data = contents.model_dump_json(indent=1).encode() + b"\n"
    if len(data) > MAX_MERGED_BYTES and len(history) > LENGTH:
        middle = len(history) // LENGTH // 2 * LENGTH
        later = {entry.id for entry in history[middle:]}
        yield from _cut(template, history[:middle], [record for record in records if record.id not in later])
        yield from _cut(template, history[middle:], [record for record in records if record.id in later])
    elif len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(
            f"{len(records)} records of {template} take {len(data)} bytes, more than is ever read. Nothing was "
            "changed. Keep fewer checkpoints, or log less with each."
        )
    else:
        yield _segment(contents, data), data


def _segment(contents: Contents, data: bytes) -> Segment:
    times = [entry.created for entry in contents.history]
    return Segment(
        key=f"{HIDDEN}/segments/{secrets.token_hex(16)}.json",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        entries=len(contents.history),
        records=len(contents.checkpoints),
        first=min(times),
        last=max(times),
    )
