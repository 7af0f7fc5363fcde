"""Records and sealed files for tests that need no Keras."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone

from remote_ckpt.records import Checkpoint
from remote_ckpt.records.series_rules import SeriesRules

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)
TEMPLATE = "w-{epoch:02d}.weights.h5"


def checkpoint(number: int = 0, score: float | None = 0.5, **changes) -> Checkpoint:
    facts = {
        "id": f"id{number}",
        "series": TEMPLATE,
        "key": f"w-{number:02d}.weights.h5",
        "size": 3,
        "sha256": f"{number:064x}",
        "crc32c": "AAAAAA==",
        "epoch": number,
        "score": score,
        "logs": {} if score is None else {"val_loss": score},
        "created": EPOCH + timedelta(seconds=number),
    }
    return Checkpoint(**{**facts, **changes})


def terms(**changes) -> SeriesRules:
    return SeriesRules(**{"monitor": "val_loss", "mode": "min", **changes})


def seal(
    spool,
    number: int = 0,
    score: float | None = 0.5,
    *,
    data: bytes | None = None,
    rules: SeriesRules | None = None,
    blocks: bool = False,
    **changes,
):
    """Seal real bytes under a record that fits them."""
    content = os.urandom(1000) if data is None else data

    def complete(digests):
        facts = {"size": digests.size, "sha256": digests.sha256, "crc32c": digests.crc32c, **changes}
        return checkpoint(number, score, **facts), rules or terms()

    name = changes.get("id", f"id{number}")
    return spool.seal(name, ".weights.h5", lambda path: path.write_bytes(content), complete, blocks=blocks)
