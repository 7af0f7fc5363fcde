"""What a run holds: immutable records, their JSON, and the pure functions that change them.

`manifest.json` comes from a bucket that anybody may have written to. So every field is typed and bounded, keys must
stay inside the run, and what we do not know is kept as it is when the manifest is written again.
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

from remote_ckpt.checkpoint import safe_json
from remote_ckpt.checkpoint.plain import check_size
from remote_ckpt.errors import LocationError, ManifestError, ManifestVersionError
from remote_ckpt.location import Location, validate_key
from remote_ckpt.policy import Mode, best_of, retained

FORMAT = 1
MAX_MANIFEST_BYTES = 64 << 20  # 10,000 records with 20 logs each are 12 MB
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
    """An object and what is known of it.

    Attributes:
        id: Unique; made when the checkpoint was captured.
        series: The filename template that made it.
        key: The object's key, relative to the run.
        url: The object's URL for messages and for `aws s3 cp`; not stored, so that a run can be moved.
        size: Bytes.
        sha256: Of the object, hexadecimal: what `sha256sum` prints.
        crc32c: Of the object, base64 as S3 and GCS write it.
        epoch: 0-based; Keras shows it plus one.
        batch: 0-based batch within the epoch, or None for a checkpoint made at an epoch's end.
        step: The optimizer's iterations, or None where unknown.
        score: The monitored value; None if it was not logged. NaN and infinities are kept.
        logs: All scalar logs of that moment.
        created: When it was captured, by the writer's clock, UTC; later than every earlier one the writer knew of.
        uploaded: When its object was complete and verified in the store, by the clock of whoever uploaded it; the
            commit follows. None where an earlier version of this package did.
        writer: Host and process that made it.
        riders: State of other callbacks, by name, as `plain.encode` writes it. Only the best and the latest of a series
            keep theirs.
        optimizers: Of each optimizer that the model held, by attribute: its class, and a digest of which of the model's
            weights it trained. The file has neither.
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
    optimizers: dict[Name, Name] = Field(default_factory=dict, max_length=100)


class Entry(_Record):
    """One line of a series' history; it outlives the checkpoint's pruning.

    Attributes:
        key: The object it had: what was killed between pruning and deleting has left it behind, for a sweep.
    """

    id: Id
    key: Key | None = None
    epoch: int = Field(ge=0, le=1 << 53)
    score: float | None = None
    created: AwareDatetime


class Segment(_Record):
    """Where a series keeps a stretch of its older past: an object that is written once and never changed.

    Attributes:
        key: The object's key, relative to the run.
        sha256: Of the object: what was read is what was committed.
        size: Bytes.
        entries: How many entries of the history it holds.
        records: How many checkpoints it holds; fewer than entries once some were pruned.
        first: When the earliest of its entries was captured; with `last` it tells where an id cannot be.
        last: When the latest of them was captured.
    """

    key: str = Field(pattern=r"^\.remote_ckpt/segments/[0-9a-f]{16,64}\.json$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=2, le=MAX_MANIFEST_BYTES)
    entries: int = Field(ge=1, le=1 << 53)
    records: int = Field(ge=0, le=1 << 53)
    first: AwareDatetime
    last: AwareDatetime


class Blocks(_Record):
    """What the object of a checkpoint holds, block by block, so that the next one need not send it again.

    Whoever reads it believes nothing: an object made with its help is compared with its own digest.

    Attributes:
        id: The checkpoint's.
        digests: Sixteen hexadecimal digits for each block, as `Digests.blocks` has them, in one string.
    """

    id: Id
    digests: str = Field(pattern=r"^([0-9a-f]{16})*$", max_length=16 * MAX_BLOCKS)

    @property
    def each(self) -> tuple[str, ...]:
        """The blocks' digests, one by one."""
        return tuple(self.digests[at : at + 16] for at in range(0, len(self.digests), 16))


def _blocks_or_none(value: Any) -> Any:
    """Let go of what is not to be understood: it would only have saved time."""
    try:
        return Blocks.model_validate(value)
    except ValidationError:
        return None


class Series(_Record):
    """The checkpoints made by one filename template.

    In the manifest of a long run only the recent past is at hand, with the best and the latest; `segments` says where
    the rest is, and `commit.archive.Archive.whole` brings it back.

    Attributes:
        monitor: The name of the metric that decides.
        mode: Its direction.
        best: Id of the best checkpoint; None while there is none.
        latest: Id of the one captured last.
        alias: What a template without fields shows under its fixed name: `"best"` or `"latest"`.
        alias_seen: Whether the fixed name has existed once. From then on its absence means that the user deleted it.
        checkpoints: Records at hand, in the order of their commits; best and latest are always among them.
        history: One entry for each commit, the latest of all commits.
        segments: What came before, oldest first.
        base: What the checkpoint committed last holds, for the delta of the next one.
    """

    monitor: Name
    mode: Mode
    best: Id | None = None
    latest: Id | None = None
    alias: Literal["best", "latest"] | None = None
    alias_seen: bool = False
    checkpoints: Annotated[tuple[Checkpoint, ...], FailFast()] = ()
    history: Annotated[tuple[Entry, ...], FailFast()] = ()
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
        """Return the checkpoint that `which` names, or None. Of several of one epoch, the last committed."""
        if which == "best":
            which = self.best
        elif which == "latest":
            which = self.latest
        if which is None:
            return None
        if isinstance(which, int):
            return next((c for c in reversed(self.checkpoints) if c.epoch == which), None)
        return next((c for c in self.checkpoints if c.id == which), None)

    def knows(self, checkpoint_id: str) -> bool:
        """Return whether a checkpoint of this id was committed, pruned or not, as far as the history is at hand."""
        return any(entry.id == checkpoint_id for entry in reversed(self.history))

    def without(self, ids: Collection[str]) -> Series:
        """Return the series without the records named by `ids`; its history stays."""
        return self._with_records(tuple(c for c in self.checkpoints if c.id not in ids))

    def scored_by(self, monitor: str, mode: Mode) -> Series:
        """Return the series judged by another metric, as far as the records' logs hold it."""
        if (monitor, mode) == (self.monitor, self.mode):
            return self
        records = tuple(c.model_copy(update={"score": c.logs.get(monitor)}) for c in self.checkpoints)
        return self.model_copy(update={"monitor": monitor, "mode": mode})._with_records(records)

    def with_checkpoint(self, candidate: Checkpoint) -> Series:
        """Return the series with `candidate` recorded, and the best if it beats the present best. Idempotent by id."""
        if self.knows(candidate.id):
            return self
        entry = Entry(
            id=candidate.id,
            key=candidate.key,
            epoch=candidate.epoch,
            score=candidate.score,
            created=candidate.created,
        )
        grown = self.model_copy(update={"history": (*self.history, entry)})
        return grown._with_records((*self.checkpoints, candidate))

    def with_base(self, checkpoint_id: str, blocks: Sequence[str]) -> Series:
        """Return the series that remembers what a checkpoint holds, as long as it holds the checkpoint."""
        held = any(record.id == checkpoint_id for record in self.checkpoints)
        if not held or not 0 < len(blocks) <= MAX_BLOCKS:
            return self
        return self.model_copy(update={"base": Blocks(id=checkpoint_id, digests="".join(blocks))})

    def pruned(self, keep_best: int | None, keep_last: int | None) -> tuple[Series, tuple[Checkpoint, ...]]:
        """Return the series after retention, and the records that fell out of it."""
        kept = retained(self.checkpoints, self.mode, keep_best, keep_last)
        kept |= {name for name in (self.best, self.latest) if name}
        gone = tuple(c for c in self.checkpoints if c.id not in kept)
        return self.without({c.id for c in gone}), gone

    def _with_records(self, records: tuple[Checkpoint, ...]) -> Series:
        """Return the series with these records; best and latest follow from them.

        The latest is the one captured last, not the one committed last: uploads of several machines, and what
        `recover` brings days later, overtake each other. Writers keep `created` rising within a series, so that a
        clock that was set back does not hide what came after.
        """
        best = best_of(records, self.mode)
        latest = max(reversed(records), key=lambda c: c.created, default=None)
        rides = {best, latest.id if latest else None}
        light = tuple(c.model_copy(update={"riders": {}}) if c.riders and c.id not in rides else c for c in records)
        return self.model_copy(
            update={"checkpoints": light, "best": best, "latest": latest.id if latest else None},
        )


class Manifest(_Record):
    """Everything a run holds; the only object of a run that changes.

    Attributes:
        format: Version of the layout. A newer one is refused and never rewritten.
        revision: Counts the commits.
        series: By filename template.
    """

    format: int = FORMAT
    revision: int = Field(default=0, ge=0)
    series: dict[Name, Series] = Field(default_factory=dict, max_length=10_000)

    @classmethod
    def parse(cls, data: bytes, location: Location) -> Manifest:
        """Read a manifest that was stored at `location`.

        Raises:
            ManifestVersionError: It was written by a newer version of this package.
            ManifestError: It is not JSON, or not a manifest; the message names the first thing that is wrong.
        """
        where = location.url("manifest.json")
        try:
            raw = safe_json.load(data)
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
        return manifest

    def dump(self) -> bytes:
        """Return the JSON, indented for people; unknown fields as they came."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    def of(self, template: str) -> Series | None:
        """Return one series."""
        return self.series.get(template)

    def with_series(self, template: str, series: Series) -> Manifest:
        """Return the next revision, with `series` in its place."""
        return self.model_copy(
            update={"series": {**self.series, template: series}, "revision": self.revision + 1},
        )

    @property
    def keys(self) -> set[str]:
        """Every object that the manifest itself names: fixed names of aliases and segments included."""
        series = self.series.values()
        objects = {c.key for one in series for c in one.checkpoints} | {s.key for one in series for s in one.segments}
        return objects | {name for name, one in self.series.items() if one.alias}


_ADVICE = (
    "To start anew, move it away; the checkpoints themselves are untouched. "
    "With versioning switched on, the bucket may hold an earlier version of it."
)


def _with_urls(raw: dict[str, Any], location: Location) -> dict[str, Any]:
    """Fill in what is not stored: each record's URL and series. Leaves what is malformed to the validation."""
    series = raw.get("series")
    if not isinstance(series, Mapping):
        return raw
    for template, content in series.items():
        records = content.get("checkpoints") if isinstance(content, Mapping) else None
        fill_in(records if isinstance(records, list) else (), template, location)
    return raw


def fill_in(records: Iterable[Any], template: str, location: Location) -> None:
    """Add to parsed JSON records what is not stored, or not to be believed: the URL and the series."""
    for record in records:
        if isinstance(record, dict) and isinstance(record.get("key"), str):
            record["url"] = location.url(record["key"])
            record["series"] = template


def first_problem(error: ValidationError | RecursionError) -> str:
    """Return where a document is wrong first, and how, in one line without control characters."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(re.sub(r"[^\x20-\x7e]", "?", str(part))[:80] for part in first["loc"])
    return f"{place}: {first['msg'][:300]}"
