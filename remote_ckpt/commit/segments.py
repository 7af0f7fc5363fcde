"""A series' older past, in objects beside the manifest, so that a commit costs the same however long a run gets.

::

    <run>/.remote_ckpt/segments/<random>.json    {"series": …, "history": [100 entries], "checkpoints": [their records]}

The manifest names each segment with its digest. A segment is written before the commit that names it, under a name
that was never used; it is never changed: pruning what it holds writes another one, which takes its place. What a lost
commit leaves, and what was replaced, is an orphan for `Run.sweep`.

A commit reads no segment, except when it must look at old records: a first commit under rules of retention or under
another metric, a best that was deleted, or a checkpoint that may have been committed long ago.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, FailFast, ValidationError

from remote_ckpt.checkpoint import Checkpoint, Entry, Manifest, Segment, Series, fill_in, first_problem, safe_json
from remote_ckpt.errors import ManifestError, ObjectNotFoundError
from remote_ckpt.location import HIDDEN, Location
from remote_ckpt.stores.base import Expect, ObjectStore

AT_HAND = 50
"""How much of the history stays in the manifest at least; with it the records that are read most."""

LENGTH = 100
"""Entries in one segment. So the manifest holds 50 to 150 records, and 10,000 checkpoints need 100 segments."""

MAX_TOTAL_BYTES = 256 << 20
"""Of a series' segments together, when all are read: 200,000 records with 20 logs each."""

_TOGETHER = 8  # requests at once

_ADVICE = (
    "Nothing was changed, and the best and the latest can still be loaded. "
    "With versioning switched on, the bucket may hold an earlier version of it."
)


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


@dataclass
class Archive:
    """Reads and writes the segments of one run. Threads: any."""

    store: ObjectStore
    location: Location
    _named: dict[str, tuple[frozenset[str], frozenset[str]]] = field(default_factory=dict)  # ids and keys, by digest

    def knows(self, template: str, series: Series, record: Checkpoint) -> bool:
        """Return whether `record` was ever committed. Reads the segments that were made of its time, each once.

        Raises:
            ManifestError: A segment is missing, or not what was committed.
            StoreError: The store refused.
        """
        if series.knows(record.id):
            return True
        near = [segment for segment in series.segments if segment.first <= record.created <= segment.last]
        return any(record.id in self._names(template, segment)[0] for segment in near)

    def keys(self, manifest: Manifest) -> set[str]:
        """Return every key that the manifest or one of its segments names. Reads each segment once.

        Raises: as `knows`.
        """
        holding = [pair for pair in _segments(manifest) if pair[1].records]
        with ThreadPoolExecutor(_TOGETHER) as pool:
            return manifest.keys.union(*pool.map(lambda pair: self._names(*pair)[1], holding))

    def whole(self, template: str, series: Series) -> Series:
        """Return a series with all its past at hand.

        Raises:
            ManifestError: A segment is missing, or not what was committed, or all of them are too much to read.
            StoreError: The store refused.
        """
        if not series.segments:
            return series
        total = sum(segment.size for segment in series.segments)
        if total > MAX_TOTAL_BYTES:
            raise ManifestError(
                f"The older records of {self.location.url(template)} take {total} bytes, and at most {MAX_TOTAL_BYTES} "
                "are read at once. The best and the latest can still be loaded."
            )
        with ThreadPoolExecutor(_TOGETHER) as pool:
            contents = list(pool.map(lambda segment: self.read(template, segment), series.segments))
        try:
            return thawed(series, contents)
        except ValueError as exc:
            raise ManifestError(
                f"The segments of {self.location.url(template)} are not valid: {exc}. {_ADVICE}"
            ) from exc

    def read(self, template: str, segment: Segment) -> Contents:
        """Return what a segment holds, verified against its digest.

        Raises: as `knows`.
        """
        where = self.location.url(segment.key)
        try:
            data, _ = self.store.read(segment.key, limit=segment.size)
        except ObjectNotFoundError as exc:
            raise ManifestError(f"{where}, which holds older records of the run, is missing. {_ADVICE}") from exc
        if hashlib.sha256(data).hexdigest() != segment.sha256:
            raise ManifestError(f"{where} is not what was committed (sha256). {_ADVICE}")
        try:
            raw = safe_json.load(data)
            fill_in(raw["checkpoints"], template, self.location)
            contents = Contents.model_validate(raw)
        except (ValidationError, RecursionError) as exc:
            raise ManifestError(f"{where} is not valid: {first_problem(exc)}. {_ADVICE}") from exc
        except (ValueError, LookupError, TypeError) as exc:
            raise ManifestError(f"{where} holds no records of a run. {_ADVICE}") from exc
        if (len(contents.history), len(contents.checkpoints)) != (segment.entries, segment.records):
            raise ManifestError(f"{where} does not hold as many records as was committed. {_ADVICE}")
        return contents

    def write(self, objects: Mapping[str, bytes]) -> None:
        """Write new segments. Their names are ours alone, so a write whose answer was lost may be repeated."""
        with ThreadPoolExecutor(_TOGETHER) as pool:
            list(pool.map(lambda key: self.store.write(key, objects[key], expect=Expect.ANYTHING), objects))

    def _names(self, template: str, segment: Segment) -> tuple[frozenset[str], frozenset[str]]:
        if segment.sha256 not in self._named:
            contents = self.read(template, segment)
            ids, keys = (entry.id for entry in contents.history), (record.key for record in contents.checkpoints)
            self._named[segment.sha256] = frozenset(ids), frozenset(keys)
        return self._named[segment.sha256]


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
        series: With segments, or with all its past at hand.
        known: Segments that are in the store, by digest: what is there already is not written again.
        hold: Whether all records stay, because rules of retention look at each of them in each commit.

    Returns:
        The series for the manifest, and the objects to write before it, by key.
    """
    count = (len(series.history) - AT_HAND) // LENGTH
    if count <= 0:
        return series, {}
    place = {entry.id: number // LENGTH for number, entry in enumerate(series.history)}
    kept: list[Checkpoint] = []
    leaving: list[list[Checkpoint]] = [[] for _ in range(count)]
    for record in series.checkpoints:
        number = place.get(record.id, 0)  # a best that has lost its rank may be older than all that is at hand
        stays = hold or number >= count or record.id in (series.best, series.latest)
        (kept if stays else leaving[number]).append(record)
    segments, objects = list(series.segments), {}
    for number, records in enumerate(leaving):
        segment, data = _segment(template, series.history[number * LENGTH : (number + 1) * LENGTH], records)
        if segment.sha256 not in known:
            objects[segment.key] = data
        segments.append(known.get(segment.sha256, segment))
    recent = series.history[count * LENGTH :]
    return series.model_copy(
        update={"history": recent, "checkpoints": tuple(kept), "segments": tuple(segments)}
    ), objects


def frozen_manifest(
    manifest: Manifest, known: Mapping[str, Segment], hold: Collection[str] = ()
) -> tuple[Manifest, dict[str, bytes]]:
    """Do the same for each series of a manifest; those named by `hold` keep all their records."""
    series: dict[str, Series] = {}
    objects: dict[str, bytes] = {}
    for template, one in manifest.series.items():
        series[template], more = frozen(template, one, known, hold=template in hold)
        objects |= more
    return manifest.model_copy(update={"series": series}), objects


def segments_of(manifest: Manifest) -> dict[str, Segment]:
    """Return a manifest's segments by digest."""
    return {segment.sha256: segment for _, segment in _segments(manifest)}


def _segments(manifest: Manifest) -> list[tuple[str, Segment]]:
    return [(template, segment) for template, series in manifest.series.items() for segment in series.segments]


def _segment(template: str, history: Sequence[Entry], records: Sequence[Checkpoint]) -> tuple[Segment, bytes]:
    contents = Contents(series=template, history=tuple(history), checkpoints=tuple(records))
    data = contents.model_dump_json(indent=1).encode() + b"\n"
    times = [entry.created for entry in history]
    segment = Segment(
        key=f"{HIDDEN}/segments/{secrets.token_hex(16)}.json",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        entries=len(history),
        records=len(records),
        first=min(times),
        last=max(times),
    )
    return segment, data
