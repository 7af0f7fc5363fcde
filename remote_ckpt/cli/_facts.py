"""Facts of a checkpoint, for people and for programs."""

from __future__ import annotations

import json
import shlex
from datetime import datetime, timezone
from typing import Any

from remote_ckpt.checkpoint import Checkpoint

_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def age(moment: datetime, now: datetime | None = None) -> str:
    """Return how long ago that was: `"3 h"`. A moment in the future, by a clock that differs, is `"0 s"`."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    seconds = max(0.0, ((now or datetime.now(timezone.utc)) - moment).total_seconds())
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def number(value: float | None) -> str:
    """Return a score for a table; a dash where there is none."""
    return "-" if value is None else f"{value:.6g}"


def as_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the record as the manifest has it, with its URL and series, epoch and batch counted from 1."""
    facts: dict[str, Any] = json.loads(checkpoint.model_dump_json())
    facts["url"] = checkpoint.url
    facts["epoch"] = checkpoint.epoch + 1
    if checkpoint.batch is not None:
        facts["batch"] = checkpoint.batch + 1
    return facts


def copy_command(checkpoint: Checkpoint, endpoint: str | None = None) -> str:
    """Return a shell command that fetches the object without this package."""
    url = checkpoint.url
    if url.startswith(("s3://", "s3a://")):
        extra = f"--endpoint-url {shlex.quote(endpoint)} " if endpoint else ""
        return f"aws s3 cp {extra}{shlex.quote(url)} ."
    if url.startswith(("gs://", "gcs://")):
        return f"gcloud storage cp {shlex.quote(url)} ."
    return f"cp {shlex.quote(url)} ." if "://" not in url else ""
