"""Series to draw, without a store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from records import EPOCH, TEMPLATE, checkpoint

from remote_ckpt.checkpoint import Entry, Series
from remote_ckpt.pictures.curves import Curve, curve_of

NAN, INF = float("nan"), float("inf")


def series(
    *scores: float | None,
    mode: str = "max",
    monitor: str = "val_accuracy",
    epochs: Sequence[int] | None = None,
    uploaded_after: float | None = 2.0,
    kept: slice = slice(None),
) -> Series:
    """A series whose checkpoints were captured a minute apart, and of which some are kept."""
    records = []
    for number, score in enumerate(scores):
        created = EPOCH + timedelta(minutes=number)
        uploaded = None if uploaded_after is None else created + timedelta(seconds=uploaded_after)
        facts = {
            "size": 1000,
            "created": created,
            "uploaded": uploaded,
            "logs": {monitor: score, "loss": -float(number)},
        }
        records.append(checkpoint(number, score, **facts, epoch=epochs[number] if epochs else number))
    history = tuple(Entry(id=r.id, epoch=r.epoch, score=r.score, created=r.created) for r in records)
    made = Series(monitor=monitor, mode=mode, history=history)
    return made._with_records(tuple(records[kept]))


def curve(*scores: float | None, run: str = "s3://bucket/run", **changes) -> Curve:
    return curve_of(run, TEMPLATE, series(*scores, **changes))
