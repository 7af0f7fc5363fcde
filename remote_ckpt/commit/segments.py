"""A series' older past, in objects beside the manifest, so that a commit costs the same however long a run gets.

::

    <run>/.remote_ckpt/segments/<random>.json    {"series": …, "history": [40 entries], "checkpoints": [their records]}

The manifest names each segment with its digest. A segment is written before the commit that names it, under a name
that was never used; it is never changed: pruning what it holds writes another one, which takes its place. Ten segments
become one of 400 entries, ten of those one of 4000: so the manifest names few. What a lost commit leaves, and what was
replaced, is an orphan for `Run.sweep`.

A commit reads no segment, except when ten become one (once in 400 commits), or when it must look at old records: a
first commit under rules of retention or under another metric, a best that was deleted, or a checkpoint that may have
been committed long ago.

Here is what is pure; `archive` reads and writes.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Annotated

from pydantic import BaseModel, ConfigDict, FailFast

from remote_ckpt.checkpoint import MAX_MANIFEST_BYTES, Checkpoint, Entry, Manifest, Segment, Series
from remote_ckpt.errors import ManifestError
from remote_ckpt.location import HIDDEN
from remote_ckpt.policy import is_better

AT_HAND = 20
"""How much of the history stays in the manifest at least; with it the records that are read most."""

LENGTH = 40
"""Entries in the smallest segments. So the manifest holds 20 to 60 records: what a commit sends and parses."""

SIZES = (100 * LENGTH, 10 * LENGTH, LENGTH)
"""Entries in a segment. 10,000 checkpoints need about ten."""

MAX_MERGED_BYTES = 16 << 20
"""Of a segment with more than `LENGTH` entries; larger records stay in smaller segments."""


class Contents(BaseModel):
    """What a segment holds.

    Attributes:
        series: The filename template, for people.
        history: Entries in the order of their commits.
        checkpoints: The records among them that were not pruned; now and then an older one, which was the best then.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    series: str
    history: Annotated[tuple[Entry, ...], FailFast()]
    checkpoints: Annotated[tuple[Checkpoint, ...], FailFast()] = ()


def layout(entries: int) -> list[int]:
    """Return how many entries each segment has of a past of so many, oldest first."""
    sizes: list[int] = []
    for size in SIZES:
        sizes += [size] * (entries // size)
        entries %= size
    return sizes


def ripe_entries(series: Series) -> int:
    """Return how many of the entries at hand are to move."""
    return max(len(series.history) - AT_HAND, 0) // LENGTH * LENGTH


def merging(series: Series) -> tuple[Segment, ...]:
    """Return the latest segments of a series, if they are to become larger ones together with what is to move now."""
    if not (ripe := ripe_entries(series)):
        return ()
    there = [segment.entries for segment in series.segments]
    sizes = layout(sum(there) + ripe)
    same = next((n for n, pair in enumerate(zip(there, sizes, strict=False)) if pair[0] != pair[1]), len(there))
    last = series.segments[same:]
    return last if sum(segment.size for segment in last) <= MAX_MERGED_BYTES else ()


def thawed(series: Series, contents: Iterable[Contents]) -> Series:
    """Return a series with what its segments hold put back in its place.

    Raises:
        ValueError: An id comes twice.
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
        series: With segments, or with all its past at hand; those that are `merging` should be at hand.
        known: Segments that are in the store, by digest: what is there already is not written again.
        hold: Whether all records stay, because rules of retention look at each of them in each commit.

    Returns:
        The series for the manifest, and the objects to write before it, by key.

    Raises:
        ManifestError: The records are larger than what is ever read.
    """
    if not (ripe := ripe_entries(series)):
        return series, {}
    place = {entry.id: number for number, entry in enumerate(series.history)}
    kept: list[Checkpoint] = []
    leaving: list[tuple[int, Checkpoint]] = []
    for record in series.checkpoints:
        number = place.get(record.id, 0)  # a best that has lost its rank may be older than all that is at hand
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
    """Return each segment of a manifest with the name of its series."""
    return [(template, segment) for template, series in manifest.series.items() for segment in series.segments]


def _may_return(record: Checkpoint, series: Series) -> bool:
    """Return whether a record is missing that would be the best: each commit looks whether its object is back."""
    best = series.find("best")
    return record.missing and is_better(record.score, best.score if best else None, series.mode)


def _sizes(series: Series, ripe: int) -> list[int]:
    """Return how what moves is cut: as the layout says where the segments that are there fit into it."""
    there = [segment.entries for segment in series.segments]
    sizes = layout(sum(there) + ripe)
    return sizes[len(there) :] if sizes[: len(there)] == there else [LENGTH] * (ripe // LENGTH)


def _cut(template: str, history: Sequence[Entry], records: Sequence[Checkpoint]) -> Iterator[tuple[Segment, bytes]]:
    """Yield the segment that holds these, or several smaller ones."""
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
