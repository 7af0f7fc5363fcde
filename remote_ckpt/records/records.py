"""The content of a run: immutable records, their JSON, and pure functions returning changed copies.

`manifest.json` comes from a bucket to which anybody may have written. So every field is typed and bounded, and keys
must stay inside the run. Unknown fields are kept unchanged when the manifest is written again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    model_validator,
)

from remote_ckpt.errors import LocationError, ManifestError, ManifestVersionError
from remote_ckpt.location import Location, validate_key
from remote_ckpt.policy import Mode, best_of, by_capture, is_number, retained
from remote_ckpt.records import bounded_json
from remote_ckpt.records.state_json import check_size

FORMAT = 1
MAX_MANIFEST_BYTES = 64 << 20  # 10,000 records with 20 logs each are 12 MB
MAX_SERIES = 10_000
MAX_BLOCKS = 8192  # of 8 MiB: 64 GiB, which take 128 KiB in the manifest

Which = str | int
"""`"best"`, `"latest"`, an epoch (0-based int), or a checkpoint's id."""


def _checked_key(key: str) -> str:
    try:
        return validate_key(key)
    except LocationError as exc:
        raise ValueError(str(exc)) from exc


Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Key = Annotated[str, AfterValidator(_checked_key)]
Name = Annotated[str, Field(max_length=1024)]


def _checked_riders(riders: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    check_size(riders)
    return riders


Riders = Annotated[dict[Name, dict[Name, Any]], Field(max_length=100), AfterValidator(_checked_riders)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="strings")


class Checkpoint(_Record):
    """A record: the manifest's facts about one object.

    Attributes:
        id: Unique; made when the checkpoint was captured.
        series: The filename template that made the key.
        key: The object's key, relative to the run.
        url: The object's URL for messages and for `aws s3 cp`; not stored, so that a run can be moved.
        size: Bytes.
        sha256: Of the object, hexadecimal, as `sha256sum` prints it.
        crc32c: Of the object, base64 as S3 and GCS write it.
        epoch: 0-based; Keras shows it plus one.
        batch: 0-based batch within the epoch, or None for a checkpoint made at an epoch's end.
        step: The optimizer's iterations, or None where unknown.
        score: The value of the monitored metric; None if it was not logged. NaN and infinities are kept.
        logs: All scalar logs at the time of the capture.
        created: When the checkpoint was captured, by the writer's clock, UTC. Later than the `created` of every earlier
            checkpoint of which the writer knew.
        uploaded: When the object was complete and verified in the store, by the clock of the uploading process; the
            commit follows. None if an earlier version of this package uploaded it.
        writer: Host and process that made the checkpoint.
        riders: State of other callbacks, by name, as `state_json.encode` writes it. Only the best and the latest of a
            series keep theirs.
        missing: Whether the object was looked for and was not in the store. Until the object is there again, the
            checkpoint is neither best nor latest, and retention neither counts nor deletes it.
        optimizers: For each optimizer of the model, by attribute name: its class, and a digest that identifies the
            weights it trained. The weights file holds neither.
    """

    id: Id
    series: Name
    key: Key
    url: str = Field(default="", exclude=True)
    size: int = Field(ge=0, le=5 << 40)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    crc32c: str = Field(pattern=r"^[A-Za-z0-9+/]{6}==$")
    epoch: int = Field(ge=0, le=1 << 53)
    batch: int | None = Field(default=None, ge=0, le=1 << 53)
    step: int | None = Field(default=None, ge=0, le=1 << 53)
    score: float | None = None
    logs: dict[Name, float | None] = Field(default_factory=dict, max_length=10_000)
    created: AwareDatetime
    uploaded: AwareDatetime | None = None
    writer: Name = ""
    riders: Riders = Field(default_factory=dict)
    missing: bool = False
    optimizers: dict[Name, Name] = Field(default_factory=dict, max_length=100)

    def scored_by(self, monitor: str) -> Checkpoint:
        """Return the record with the value of another metric as score; None if this metric was not logged."""
        return self.model_copy(update={"score": self.logs.get(monitor)})


class HistoryPoint(_Record):
    """An entry in the history of a series, made at the commit of a checkpoint and kept after pruning.

    Attributes:
        key: The object's key. If a process was killed after pruning and before deleting, a sweep finds the object by
            this key.
        monitor: The metric of the score, if it is not the metric of the series: the series changed its metric after
            the record was pruned. Else None.
    """

    id: Id
    key: Key | None = None
    epoch: int = Field(ge=0, le=1 << 53)
    score: float | None = None
    monitor: Name | None = None
    created: AwareDatetime

    @property
    def own_score(self) -> float | None:
        """The score by the metric of the series; None if the score is by another metric and so not comparable."""
        return self.score if self.monitor is None else None


class Segment(_Record):
    """A reference to an object with a stretch of a series' older history; the object never changes.

    Attributes:
        key: The object's key, relative to the run.
        sha256: Of the object; compared at each read.
        size: Bytes.
        entries: How many entries of the history it holds.
        records: How many checkpoints it holds; fewer than entries once some were pruned.
        first: When the earliest of its entries was captured. A checkpoint captured before `first` or after `last` is
            not in this segment.
        last: When the latest of its entries was captured.
    """

    key: str = Field(pattern=r"^\.remote_ckpt/segments/[0-9a-f]{16,64}\.json$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=2, le=MAX_MANIFEST_BYTES)
    entries: int = Field(ge=1, le=1 << 53)
    records: int = Field(ge=0, le=1 << 53)
    first: AwareDatetime
    last: AwareDatetime


class Blocks(_Record):
    """The digests of an object's blocks, so that the next upload need not send equal blocks again.

    The digests are not trusted: an object assembled with their help is compared with its own digest.

    Attributes:
        id: The checkpoint's.
        digests: Sixteen hexadecimal digits for each block, as `Digests.blocks` has them, in one string.
    """

    id: Id
    digests: str = Field(pattern=r"^([0-9a-f]{16})*$", max_length=16 * MAX_BLOCKS)

    @property
    def each(self) -> tuple[str, ...]:
        """The blocks' digests as a tuple, in the order of the blocks."""
        return tuple(self.digests[at : at + 16] for at in range(0, len(self.digests), 16))


def _blocks_or_none(value: Any) -> Any:
    """Return the validated blocks, or None for invalid data: without blocks an upload only takes longer."""
    try:
        return Blocks.model_validate(value)
    except ValidationError:
        return None


class Series(_Record):
    """The checkpoints made by one filename template.

    In the manifest of a long run only the recent history is loaded, with the best and the latest. `segments` refers to
    the rest, and `commit.archive.Archive.whole` loads it.

    Attributes:
        monitor: The name of the metric that decides.
        mode: Its direction.
        best: Id of the best checkpoint; None while none has a score that is a number.
        latest: Id of the checkpoint captured last, see `policy.by_capture`.
        alias: For a template without fields, the checkpoint that is copied to its fixed name: `"best"` or `"latest"`;
            see `shown`.
        alias_seen: Whether the object under the fixed name has existed. From then on its absence means that the user
            deleted it.
        checkpoints: The loaded records, in the order of their commits; best and latest are always among them.
        history: The loaded entries, one for each commit, oldest first; the last commits of the series.
        segments: The older entries and records, oldest first.
        base: The blocks of the last committed checkpoint whose blocks are known, for the delta of the next upload.
    """

    monitor: Name
    mode: Mode
    best: Id | None = None
    latest: Id | None = None
    alias: Literal["best", "latest"] | None = None
    alias_seen: bool = False
    checkpoints: Annotated[tuple[Checkpoint, ...], FailFast()] = ()
    history: Annotated[tuple[HistoryPoint, ...], FailFast()] = ()
    segments: tuple[Segment, ...] = ()
    base: Annotated[Blocks | None, BeforeValidator(_blocks_or_none)] = None

    @model_validator(mode="after")
    def _names_what_it_holds(self) -> Series:
        ids = [record.id for record in self.checkpoints]
        if len(set(ids)) != len(ids):
            raise ValueError("two checkpoints have one id")
        for name in (self.best, self.latest):
            if name is not None and name not in ids:
                raise ValueError(f"best or latest names {name!r}, which is not among the checkpoints")
        return self

    def find(self, which: Which | None) -> Checkpoint | None:
        """Return the checkpoint named by `which`, or None; of several from the same epoch, the latest."""
        if which == "best":
            which = self.best
        elif which == "latest":
            which = self.latest
        if which is None:
            return None
        if isinstance(which, int):
            return next(iter(by_capture(c for c in self.checkpoints if c.epoch == which)[-1:]), None)
        return next((c for c in self.checkpoints if c.id == which), None)

    @property
    def shown(self) -> Checkpoint | None:
        """The checkpoint to copy to the fixed name, if any. While there is no best, the latest takes its place."""
        return (self.find(self.alias) or self.find("latest")) if self.alias else None

    def knows(self, checkpoint_id: str) -> bool:
        """Return whether the loaded history has a checkpoint of this id, pruned or not. Segments are not read."""
        return any(entry.id == checkpoint_id for entry in reversed(self.history))

    def without(self, ids: Collection[str]) -> Series:
        """Return the series without the records of the given ids; the history stays unchanged."""
        return self._with_records(tuple(c for c in self.checkpoints if c.id not in ids))

    def marked(self, ids: Collection[str], *, missing: bool) -> Series:
        """Return the series with the records of the given ids marked as missing, or as present again."""
        if not ids:
            return self
        change = {"missing": missing}
        return self._with_records(tuple(c.model_copy(update=change) if c.id in ids else c for c in self.checkpoints))

    def with_past(self, history: Sequence[HistoryPoint], checkpoints: Sequence[Checkpoint]) -> Series:
        """Return the series with another history and other records, without segments; choose best and latest anew."""
        changed = self.model_copy(update={"history": tuple(history), "segments": ()})
        return changed._with_records(tuple(checkpoints))

    def scored_by(self, monitor: str, mode: Mode) -> Series:
        """Return the series judged by another metric, read from the logs of the loaded records."""
        if (monitor, mode) == (self.monitor, self.mode):
            return self
        if monitor == self.monitor:
            return self.model_copy(update={"mode": mode})._with_records(self.checkpoints)
        records = {c.id: c.scored_by(monitor) for c in self.checkpoints}
        history = tuple(self._rescored(entry, monitor, records.get(entry.id)) for entry in self.history)
        changed = self.model_copy(update={"monitor": monitor, "mode": mode, "history": history})
        return changed._with_records(tuple(records.values()))

    def _rescored(self, entry: HistoryPoint, monitor: str, record: Checkpoint | None) -> HistoryPoint:
        """Return a history entry scored by another metric; without a record the entry keeps score and metric."""
        if record is not None:
            return entry.model_copy(update={"score": record.score, "monitor": None})
        known = entry.monitor or self.monitor
        return entry.model_copy(update={"monitor": None if known == monitor else known})

    def with_checkpoint(self, candidate: Checkpoint) -> Series:
        """Return the series with `candidate` added, as the best if it beats the present best. Idempotent by id."""
        if self.knows(candidate.id):
            return self
        entry = HistoryPoint(
            id=candidate.id,
            key=candidate.key,
            epoch=candidate.epoch,
            score=candidate.score,
            created=candidate.created,
        )
        grown = self.model_copy(update={"history": (*self.history, entry)})
        return grown._with_records((*self.checkpoints, candidate))

    def with_base(self, checkpoint_id: str, blocks: Sequence[str]) -> Series:
        """Return the series with the given blocks as delta base, if the series still holds the checkpoint."""
        held = any(record.id == checkpoint_id for record in self.checkpoints)
        if not held or not 0 < len(blocks) <= MAX_BLOCKS:
            return self
        return self.model_copy(update={"base": Blocks(id=checkpoint_id, digests="".join(blocks))})

    def pruned(self, keep_best: int | None, keep_last: int | None) -> tuple[Series, tuple[Checkpoint, ...]]:
        """Return the series after retention, and the removed records. Records marked as missing stay."""
        there = [c for c in self.checkpoints if not c.missing]
        kept = retained(by_capture(there), self.mode, keep_best, keep_last)
        kept |= {name for name in (self.best, self.latest) if name} | {c.id for c in self.checkpoints if c.missing}
        gone = tuple(c for c in self.checkpoints if c.id not in kept)
        return self.without({c.id for c in gone}), gone

    def _with_records(self, records: tuple[Checkpoint, ...]) -> Series:
        """Return the series with these records; choose best and latest among the records not marked as missing.

        Only best and latest keep their riders. Writers keep `created` rising within a series, so that a clock that was
        set back does not make a later checkpoint look older.
        """
        there = [c for c in records if not c.missing]
        best = best_of(there, self.mode)
        latest = by_capture(there)[-1].id if there else None
        rides = {best, latest}
        light = tuple(c.model_copy(update={"riders": {}}) if c.riders and c.id not in rides else c for c in records)
        return self.model_copy(
            update={"checkpoints": light, "best": best, "latest": latest},
        )


class Manifest(_Record):
    """The manifest of a run: all series with their records.

    Attributes:
        format: Version of the layout. A newer one is refused and never rewritten.
        revision: A number that rises with each change of the manifest.
        series: By filename template.
    """

    format: int = FORMAT
    revision: int = Field(default=0, ge=0)
    series: dict[Name, Series] = Field(default_factory=dict, max_length=MAX_SERIES)

    @classmethod
    def parse(cls, data: bytes, location: Location) -> Manifest:
        """Parse the JSON of a manifest stored at `location`.

        Raises:
            ManifestVersionError: The manifest was written by a newer version of this package.
            ManifestError: `data` is not JSON, or not a manifest; the message names the first invalid field.
        """
        where = location.url("manifest.json")
        try:
            raw = bounded_json.load(data)
        except ValueError as exc:
            raise ManifestError(f"{where} is not JSON: {exc}. Nothing was changed. {_ADVICE}") from exc
        if not isinstance(raw, dict):
            raise ManifestError(f"{where} is JSON, but not a manifest. Nothing was changed. {_ADVICE}")
        version = raw.get("format")
        if isinstance(version, int) and version > FORMAT:
            raise ManifestVersionError(
                f"{where} has format {version}, and this remote_ckpt reads up to {FORMAT}. "
                "Upgrade with `pip install -U remote_ckpt`; the manifest was not changed."
            )
        if version != FORMAT or isinstance(version, bool):
            raise ManifestError(f"{where} is JSON, but not a manifest (no format). Nothing was changed. {_ADVICE}")
        try:
            manifest = cls.model_validate(_with_urls(raw, location))
        except (ValidationError, RecursionError) as exc:
            raise ManifestError(f"{where} is not valid: {first_problem(exc)}. Nothing was changed. {_ADVICE}") from exc
        return manifest._without_unscored_bests()

    def dump(self) -> bytes:
        """Return the JSON, indented for people; unknown fields are written unchanged."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    def _without_unscored_bests(self) -> Manifest:
        """Return the manifest without bests lacking a score: earlier versions then named the newest checkpoint."""
        settled = {
            name: one.model_copy(update={"best": None})
            for name, one in self.series.items()
            if (best := one.find("best")) is not None and not is_number(best.score)
        }
        return self.model_copy(update={"series": {**self.series, **settled}}) if settled else self

    def of(self, template: str) -> Series | None:
        """Return the series of a filename template, or None."""
        return self.series.get(template)

    def with_series(self, template: str, series: Series) -> Manifest:
        """Return the next revision of the manifest, with `series` under `template`.

        Raises:
            ManifestError: The manifest already holds `MAX_SERIES` series, and `template` is not among them.
        """
        if template not in self.series and len(self.series) >= MAX_SERIES:
            raise ManifestError(
                f"The run holds {len(self.series)} series, as many as are ever read. Nothing was changed. "
                "Use one filename template for many checkpoints, or the folder of another run."
            )
        return self.model_copy(
            update={"series": {**self.series, template: series}, "revision": self.revision + 1},
        )

    @property
    def keys(self) -> set[str]:
        """The keys of all objects named in the manifest itself: checkpoints, segments and fixed names of aliases."""
        series = self.series.values()
        objects = {c.key for one in series for c in one.checkpoints} | {s.key for one in series for s in one.segments}
        return objects | {name for name, one in self.series.items() if one.alias}


_ADVICE = (
    "Move it away; the checkpoints themselves are untouched, and `remote-ckpt rebuild` makes a new one from them. "
    "With versioning switched on, the bucket may hold an earlier version of it."
)


def _with_urls(raw: dict[str, Any], location: Location) -> dict[str, Any]:
    """Set URL and series in each parsed record. Malformed data is left for the validation to refuse."""
    series = raw.get("series")
    if not isinstance(series, Mapping):
        return raw
    for template, content in series.items():
        records = content.get("checkpoints") if isinstance(content, Mapping) else None
        fill_in(records if isinstance(records, list) else (), template, location)
    return raw


def fill_in(records: Iterable[Any], template: str, location: Location) -> None:
    """Set URL and series in parsed JSON records: the URL is not stored, and a stored series is not trusted."""
    for record in records:
        if isinstance(record, dict) and isinstance(record.get("key"), str):
            record["url"] = location.url(record["key"])
            record["series"] = template


def first_problem(error: ValidationError | RecursionError) -> str:
    """Return place and kind of the first validation error, in a single line without control characters."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(re.sub(r"[^\x20-\x7e]", "?", str(part))[:80] for part in first["loc"])
    return f"{place}: {first['msg'][:300]}"
