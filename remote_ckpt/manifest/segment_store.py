"""The segments of a run in the store: verified when read, and written before the manifest names them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pydantic import ValidationError

from remote_ckpt.errors import ManifestError, ObjectNotFoundError
from remote_ckpt.location import Location
from remote_ckpt.manifest.segments import Contents, frozen, merging, named_segments, thawed
from remote_ckpt.records import Checkpoint, Manifest, Segment, Series, bounded_json, fill_in, first_problem
from remote_ckpt.stores.base import Expect, ObjectStore

log = logging.getLogger("remote_ckpt")

MAX_TOTAL_BYTES = 256 << 20
"""Most bytes of a series' segments that are read together: enough for 200,000 records with 20 logs each."""

_TOGETHER = 8  # requests at once

_ADVICE = (
    "Nothing was changed, and the best and the latest can still be loaded. "
    "With versioning switched on, the bucket may hold an earlier version of it."
)


@dataclass
class SegmentStore:
    """A reader and writer of the segments of a run. Threads: any."""

    store: ObjectStore
    location: Location
    _named: dict[str, tuple[frozenset[str], frozenset[str]]] = field(default_factory=dict)  # ids and keys, by digest

    def knows(self, template: str, series: Series, record: Checkpoint) -> bool:
        """Return whether `record` was ever committed.

        Read the segments whose time span holds the record's time of capture, each once for each `SegmentStore`.

        Raises:
            ManifestError: A segment is missing, or differs from the committed one.
            StoreError: The store refused.
        """
        if series.knows(record.id):
            return True
        near = [segment for segment in series.segments if segment.first <= record.created <= segment.last]
        return any(record.id in self._names(template, segment)[0] for segment in near)

    def remembers(self, template: str, series: Series, record: Checkpoint) -> bool:
        """Return the result of `knows`, or False if a needed segment is missing or damaged.

        Raises:
            StoreError: The store refused.
        """
        try:
            return self.knows(template, series, record)
        except ManifestError:
            return False

    def keys(self, manifest: Manifest) -> set[str]:
        """Return all keys of objects named in the manifest or in the records of the segments.

        Read each segment that holds records, once for each `SegmentStore`.

        Raises: as `knows`.
        """
        holding = [pair for pair in named_segments(manifest) if pair[1].records]
        with ThreadPoolExecutor(_TOGETHER) as pool:
            return manifest.keys.union(*pool.map(lambda pair: self._names(*pair)[1], holding))

    def whole(self, template: str, series: Series) -> Series:
        """Return a series with the entire history and all records loaded, without segments.

        Raises:
            ManifestError: A segment is missing, or differs from the committed one; or all segments together exceed
                `MAX_TOTAL_BYTES`.
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

    def rescued(self, template: str, series: Series) -> Series:
        """Return a series with all readable history loaded, without segments.

        A missing or damaged segment is logged and left out. If the segments together exceed `MAX_TOTAL_BYTES`, the
        latest ones are loaded.

        Raises:
            StoreError: The store refused.
        """
        contents: list[Contents] = []
        room = MAX_TOTAL_BYTES
        for segment in reversed(series.segments):
            try:
                if (room := room - segment.size) >= 0:
                    contents.insert(0, self.read(template, segment))
                    thawed(series, contents)
            except ManifestError as exc:
                log.warning("Older records of %s are lost. %s", self.location.url(template), exc)
            except ValueError:
                del contents[0]  # an id of this segment is also in a later one
        try:
            return thawed(series, contents)
        except ValueError:
            return series.model_copy(update={"segments": ()})

    def read(self, template: str, segment: Segment) -> Contents:
        """Read and parse a segment, verified against its digest.

        Raises: as `knows`.
        """
        where = self.location.url(segment.key)
        try:
            data, _ = self.store.read(segment.key, limit=segment.size)
        except ObjectNotFoundError as exc:
            # Lost; or replaced and swept since the manifest was read: then `loop` reads the manifest again.
            raise ManifestError(f"{where}, which holds older records of the run, is missing. {_ADVICE}") from exc
        if hashlib.sha256(data).hexdigest() != segment.sha256:
            raise ManifestError(f"{where} is not what was committed (sha256). {_ADVICE}")
        contents = self.parse(data, where, template)
        if (len(contents.history), len(contents.checkpoints)) != (segment.entries, segment.records):
            raise ManifestError(f"{where} does not hold as many records as was committed. {_ADVICE}")
        return contents

    def parse(self, data: bytes, where: str, template: str | None = None) -> Contents:
        """Parse the bytes of a segment without verifying a digest.

        Args:
            data: The segment's bytes.
            where: Its URL, for messages.
            template: The series of the segment; None takes the series named in the segment.

        Raises:
            ManifestError: The bytes are not a segment.
        """
        try:
            raw = bounded_json.load(data)
            fill_in(raw["checkpoints"], str(raw["series"]) if template is None else template, self.location)
            return Contents.model_validate(raw)
        except (ValidationError, RecursionError) as exc:
            raise ManifestError(f"{where} is not valid: {first_problem(exc)}. {_ADVICE}") from exc
        except (ValueError, LookupError, TypeError) as exc:
            raise ManifestError(f"{where} holds no records of a run. {_ADVICE}") from exc

    def ever_named(self, manifest: Manifest) -> set[str]:
        """Return all keys named in a manifest now or earlier, as far as the segments can be read.

        Raises:
            StoreError: The store refused.
        """
        pasts = [self.rescued(name, one).history for name, one in manifest.series.items()]
        return manifest.keys | {entry.key for past in pasts for entry in past if entry.key is not None}

    def frozen(
        self, manifest: Manifest, known: Mapping[str, Segment], hold: Collection[str] = ()
    ) -> tuple[Manifest, dict[str, bytes]]:
        """Move all but the recent past of each series to segments.

        Args:
            manifest: A series in it may have segments, or all of its history loaded.
            known: Segments that are in the store, by digest: these are not written again.
            hold: Series whose records all stay in the manifest, see `segments.frozen`.

        Returns:
            The manifest to commit, and the objects to write before it, by key.

        Raises:
            ManifestError: The records of a segment take more bytes than a reader accepts.
            StoreError: The store refused.
        """
        series: dict[str, Series] = {}
        objects: dict[str, bytes] = {}
        for template, one in manifest.series.items():
            series[template], more = frozen(template, self._opened(template, one), known, hold=template in hold)
            objects |= more
        return manifest.model_copy(update={"series": series}), objects

    def write(self, objects: Mapping[str, bytes]) -> None:
        """Write new segments, all before the commit of the manifest.

        Raises:
            StoreError: The store refused. Some of the segments may have been written: orphans for `Run.sweep`.
        """
        with ThreadPoolExecutor(_TOGETHER) as pool:
            # Unconditional: each key is random and new, so the store layer may repeat a write whose answer was lost.
            list(pool.map(lambda key: self.store.write(key, objects[key], expect=Expect.ANYTHING), objects))

    def _opened(self, template: str, series: Series) -> Series:
        """Return a series with the segments to merge loaded. If one cannot be read, return the series unchanged."""
        if not (last := merging(series)):
            return series
        try:
            opened = self.whole(template, series.model_copy(update={"segments": last}))
        except ManifestError as exc:  # merging only saves space: a lost segment must not stop the commits
            log.warning("%s", exc)
            return series
        return opened.model_copy(update={"segments": series.segments[: -len(last)]})

    def _names(self, template: str, segment: Segment) -> tuple[frozenset[str], frozenset[str]]:
        # Two threads may read the same segment twice, with equal results: a segment never changes.
        if segment.sha256 not in self._named:
            contents = self.read(template, segment)
            ids, keys = (entry.id for entry in contents.history), (record.key for record in contents.checkpoints)
            self._named[segment.sha256] = frozenset(ids), frozenset(keys)
        return self._named[segment.sha256]
