"""A file that exists already becomes a checkpoint of a run: checked, sealed, and published as any other."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from remote_ckpt.checkpoint import Checkpoint, Manifest, Series
from remote_ckpt.checkpoint.readable import recordable
from remote_ckpt.commit import Committer
from remote_ckpt.digests import digest_file
from remote_ckpt.errors import CorruptCheckpointError, LocationError, TemplateError
from remote_ckpt.location import SUFFIXES, Location, Template
from remote_ckpt.policy import Mode, by_capture, infer_mode
from remote_ckpt.publish import Publisher, object_key
from remote_ckpt.spool import Entry, Spool, Terms
from remote_ckpt.stores.base import Digests, Progress, TransferReport

log = logging.getLogger("remote_ckpt")


@dataclass(frozen=True)
class Facts:
    """What the user knows of the file; what is None follows from the run.

    Attributes:
        score: What it reached; NaN is recorded, and never the best.
        epoch: 0-based; else the one after the series' checkpoint that was captured last before the file was written.
        monitor: The metric that the score is of; else the series' own, or the one of the run's other series, or
            `val_loss`.
        mode: Its direction; else the series' own, or what the metric's name says.
        logs: Other metrics, for the filename template and for the record.
    """

    score: float
    epoch: int | None = None
    monitor: str | None = None
    mode: Mode | None = None
    logs: Mapping[str, float] = field(default_factory=dict)


def push(
    path: Path,
    facts: Facts,
    *,
    location: Location,
    committer: Committer,
    spool: Spool,
    progress: Progress | None = None,
) -> Checkpoint:
    """Publish a `.weights.h5`, `.keras` or `.h5` file; see `Run.push`. What it needs of the spool it gives back."""
    suffix = _checked(path)
    manifest = committer.load(to_write=True)
    template = _template(location, manifest, suffix)
    series, terms = manifest.of(template.text), _terms(template, manifest, facts)
    digests = digest_file(path)
    for record in series.checkpoints if series else ():
        if _is_same(record, digests, facts):
            return record
    try:
        waiting = (one for one in spool.adopt() if one.record.series == template.text)
        entry = next((one for one in waiting if _is_same(one.record, digests, facts)), None)
        if entry is None:
            past = committer.archive.whole(template.text, series) if series else None
            record = _record(path, template, past, terms, facts, digests)
            location.check_name(template, record.key if template.fields else template.text)
            entry = _seal(path, record, terms, spool)
        commit = Publisher(committer.store, location, committer).publish(
            entry, TransferReport(), spool.beating(progress)
        )
    finally:
        spool.close()
    if commit.problem is not None:
        log.warning("%s", commit.problem)
    return commit.series.find(entry.record.id) or entry.record


def _checked(path: Path) -> str:
    """Return the file's suffix, after looking whether it is what that says."""
    suffix = _suffix(path.name)
    if suffix is None:
        raise LocationError(f"{path} cannot be a checkpoint: its name must end in {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise LocationError(f"{path} {'is not a file' if path.exists() else 'does not exist'}.")
    from remote_ckpt.weights_file import check, check_keras_archive  # h5py takes a tenth of a second

    (check_keras_archive if suffix == ".keras" else check)(path)
    return suffix


def _suffix(name: str) -> str | None:
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def _template(location: Location, manifest: Manifest, suffix: str) -> Template:
    """Return the template of the series that the file joins."""
    if location.template is not None:
        template = Template(location.template)
        if template.suffix != suffix:
            raise LocationError(f"A {suffix} file cannot become {location.url(template.text)}: the suffixes differ.")
        return template
    fitting = [name for name in manifest.series if _suffix(name) == suffix]
    if len(fitting) > 1:
        named = ", ".join(map(repr, sorted(fitting)))
        raise LocationError(f"{location.name} has several series of {suffix} files. Name one in the URL: {named}.")
    return Template(fitting[0] if fitting else f"pushed-{{epoch:02d}}{suffix}")


def _terms(template: Template, manifest: Manifest, facts: Facts) -> Terms:
    """Return how the series is judged and shown: as it is; a new one as the others of the run."""
    series = manifest.of(template.text)
    if series is not None:
        wrong = (facts.monitor or series.monitor, facts.mode or series.mode) != (series.monitor, series.mode)
        if wrong:
            raise LocationError(
                f"The series {template.text!r} is judged by {series.monitor} ({series.mode}). Give that score, and "
                "what else is known as logs; or name another filename template in the URL."
            )
        return Terms(monitor=series.monitor, mode=series.mode, alias=series.alias)
    judges = {(one.monitor, one.mode) for one in manifest.series.values()}
    usual = next(iter(judges)) if len(judges) == 1 else None
    monitor = facts.monitor or (usual[0] if usual else "val_loss")
    mode = facts.mode or (usual[1] if usual and usual[0] == monitor else infer_mode(monitor))
    return Terms(monitor=monitor, mode=mode, alias=None if template.fields else "best")


def _record(
    path: Path, template: Template, series: Series | None, terms: Terms, facts: Facts, digests: Digests
) -> Checkpoint:
    created = _written(path)
    epoch = facts.epoch if facts.epoch is not None else _next_epoch(series, created)
    logs: dict[str, float | None] = {**facts.logs, terms.monitor: facts.score}
    checkpoint_id = secrets.token_hex(8)
    try:
        formatted = template.format(epoch=epoch, logs=logs)
    except TemplateError as exc:
        raise TemplateError(f"{exc} Give the others as logs (--log NAME=VALUE).") from exc
    known = {
        "id": checkpoint_id,
        "series": template.text,
        "key": object_key(template, formatted, checkpoint_id),
        "size": digests.size,
        "sha256": digests.sha256,
        "crc32c": digests.crc32c,
        "epoch": epoch,
        "score": facts.score,
        "logs": logs,
        "created": created,
        "writer": f"{socket.gethostname()}-{os.getpid()}",
    }
    return recordable(known, terms.monitor)


def _next_epoch(series: Series | None, created: datetime) -> int:
    """Return the epoch in whose place the file belongs: by time, as the latest is found."""
    before = by_capture(record for record in (series.checkpoints if series else ()) if record.created <= created)
    return before[-1].epoch + 1 if before else 0


def _written(path: Path) -> datetime:
    """Return when the file was written: an old one is not the latest because it came late."""
    return min(datetime.fromtimestamp(path.stat().st_mtime, timezone.utc), datetime.now(timezone.utc))


def _is_same(record: Checkpoint, digests: Digests, facts: Facts) -> bool:
    """Return whether an earlier push of the same made a record."""
    same_score = repr(record.score) == repr(facts.score)  # NaN is equal to itself here
    return record.sha256 == digests.sha256 and same_score and facts.epoch in (None, record.epoch)


def _seal(path: Path, record: Checkpoint, terms: Terms, spool: Spool) -> Entry:
    """Copy the file into the spool; what is sealed is what was checked."""

    def copy(target: Path) -> None:
        shutil.copyfile(path, target)

    def complete(digests: Digests) -> tuple[Checkpoint, Terms]:
        if digests.sha256 != record.sha256:
            raise CorruptCheckpointError(f"{path} was changed while it was read. Push it again when it is complete.")
        return record, terms

    return spool.seal(record.id, Template(record.series).suffix, copy, complete)
