"""Make a checkpoint of an existing file: check, seal and publish the file."""

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

from remote_ckpt.digests import digest_file
from remote_ckpt.errors import CorruptCheckpointError, LocationError, TemplateError
from remote_ckpt.location import SUFFIXES, Location, NameTemplate
from remote_ckpt.manifest import Committer
from remote_ckpt.policy import Mode, by_capture, infer_mode
from remote_ckpt.records import Checkpoint, Manifest, Series
from remote_ckpt.records.readable import recordable
from remote_ckpt.records.series_rules import SeriesRules
from remote_ckpt.saving.publisher import Publisher, object_key
from remote_ckpt.saving.spool import Spool, SpoolEntry
from remote_ckpt.stores.base import Digests, Progress, TransferReport

log = logging.getLogger("remote_ckpt")


@dataclass(frozen=True)
class Facts:
    """Facts about the file, given by the user; for each None the run decides.

    Attributes:
        score: The value of the monitored metric. NaN is recorded, and is never the best.
        epoch: 0-based. None: the epoch after that of the checkpoint that was captured last before the file was written.
        monitor: The metric of the score. None: the series' own; for a new series the metric by which the run's other
            series are judged, if they agree, else `val_loss`.
        mode: The metric's direction. None: the series' own; for a new series that of the run's other series if they are
            judged by this metric, else the direction that follows from the metric's name.
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
    """Publish a `.weights.h5`, `.keras` or `.h5` file; see `Run.push`.

    The locks that this takes in the spool are released on return, and after an error too.
    """
    suffix = _checked(path)
    manifest = committer.load(to_write=True)
    template = _template(location, manifest, suffix)
    series, terms = manifest.of(template.text), _terms(template, manifest, facts)
    digests = digest_file(path)
    for record in series.checkpoints if series else ():
        if _is_same(record, digests, facts):  # repeated after a push that succeeded, or whose answer was lost
            return record
    # An earlier push of this file may have been killed after its seal. Its entry is published here, with the notes of
    # its upload, in place of a second copy. The other entries that `adopt` takes over are released by `close`.
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
    """Return the file's suffix, and check the file's content against the suffix.

    Raises:
        LocationError: There is no such file, or its suffix is not a checkpoint's.
        CorruptCheckpointError: The content is damaged, not safe to load, or not of this kind.
    """
    suffix = _suffix(path.name)
    if suffix is None:
        raise LocationError(f"{path} cannot be a checkpoint: its name must end in {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise LocationError(f"{path} {'is not a file' if path.exists() else 'does not exist'}.")
    from remote_ckpt.weights_file import check, check_keras_archive  # importing h5py takes a tenth of a second

    (check_keras_archive if suffix == ".keras" else check)(path)
    return suffix


def _suffix(name: str) -> str | None:
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def _template(location: Location, manifest: Manifest, suffix: str) -> NameTemplate:
    """Return the template of the file's series: from the URL, else from the run's only series with this suffix."""
    if location.template is not None:
        template = NameTemplate(location.template)
        if template.suffix != suffix:
            raise LocationError(f"A {suffix} file cannot become {location.url(template.text)}: the suffixes differ.")
        return template
    fitting = [name for name in manifest.series if _suffix(name) == suffix]
    if len(fitting) > 1:
        named = ", ".join(map(repr, sorted(fitting)))
        raise LocationError(f"{location.name} has several series of {suffix} files. Name one in the URL: {named}.")
    return NameTemplate(fitting[0] if fitting else f"pushed-{{epoch:02d}}{suffix}")


def _terms(template: NameTemplate, manifest: Manifest, facts: Facts) -> SeriesRules:
    """Return the terms of the series; a new series takes over monitor and mode from the run's other series."""
    series = manifest.of(template.text)
    if series is not None:
        wrong = (facts.monitor or series.monitor, facts.mode or series.mode) != (series.monitor, series.mode)
        if wrong:
            raise LocationError(
                f"The series {template.text!r} is judged by {series.monitor} ({series.mode}). Give that score, and "
                "what else is known as logs; or name another filename template in the URL."
            )
        return SeriesRules(monitor=series.monitor, mode=series.mode, alias=series.alias)
    judges = {(one.monitor, one.mode) for one in manifest.series.values()}
    usual = next(iter(judges)) if len(judges) == 1 else None
    monitor = facts.monitor or (usual[0] if usual else "val_loss")
    mode = facts.mode or (usual[1] if usual and usual[0] == monitor else infer_mode(monitor))
    return SeriesRules(monitor=monitor, mode=mode, alias=None if template.fields else "best")


def _record(
    path: Path, template: NameTemplate, series: Series | None, terms: SeriesRules, facts: Facts, digests: Digests
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
    """Return the epoch after that of the latest checkpoint up to `created` (the file's time); else 0."""
    before = by_capture(record for record in (series.checkpoints if series else ()) if record.created <= created)
    return before[-1].epoch + 1 if before else 0


def _written(path: Path) -> datetime:
    """Return the file's modification time, as the time of capture; at most the present time.

    So a push of an old file does not make the file the latest. The bound is for files dated in the future.
    """
    return min(datetime.fromtimestamp(path.stat().st_mtime, timezone.utc), datetime.now(timezone.utc))


def _is_same(record: Checkpoint, digests: Digests, facts: Facts) -> bool:
    """Return whether `record` comes from an earlier push of the same file with the same facts."""
    same_score = repr(record.score) == repr(facts.score)  # by text, in which NaN equals NaN
    return record.sha256 == digests.sha256 and same_score and facts.epoch in (None, record.epoch)


def _seal(path: Path, record: Checkpoint, terms: SeriesRules, spool: Spool) -> SpoolEntry:
    """Copy the file into the spool and seal the copy.

    Raises:
        CorruptCheckpointError: The copy's digest differs from the digest of the file that was checked.
    """

    def copy(target: Path) -> None:
        shutil.copyfile(path, target)

    def complete(digests: Digests) -> tuple[Checkpoint, SeriesRules]:
        if digests.sha256 != record.sha256:  # somebody wrote to the file after its digest was taken
            raise CorruptCheckpointError(f"{path} was changed while it was read. Push it again when it is complete.")
        return record, terms

    return spool.seal(record.id, NameTemplate(record.series).suffix, copy, complete)
