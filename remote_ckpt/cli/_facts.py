"""Facts of a checkpoint, for people and for programs."""

from __future__ import annotations

import json
import shlex
from typing import Any

from remote_ckpt.formatting import age as age
from remote_ckpt.formatting import number as number
from remote_ckpt.records import Checkpoint


def as_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the record as stored in the manifest, with the URL added; epoch and batch count from 1."""
    facts: dict[str, Any] = json.loads(checkpoint.model_dump_json())
    facts["url"] = checkpoint.url
    facts["epoch"] = checkpoint.epoch + 1
    if checkpoint.batch is not None:
        facts["batch"] = checkpoint.batch + 1
    return facts


def copy_command(checkpoint: Checkpoint, endpoint: str | None = None) -> str:
    """Return a shell command to fetch the object without this package; empty for stores without a known tool."""
    url = checkpoint.url
    if url.startswith(("s3://", "s3a://")):
        extra = f"--endpoint-url {shlex.quote(endpoint)} " if endpoint else ""
        return f"aws s3 cp {extra}{shlex.quote(url)} ."
    if url.startswith(("gs://", "gcs://")):
        return f"gcloud storage cp {shlex.quote(url)} ."
    return f"cp {shlex.quote(url)} ." if "://" not in url else ""
