"""Series to draw, without a store."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta

from records import EPOCH, TEMPLATE, checkpoint

from remote_ckpt.pictures.curves import Curve, curve_of
from remote_ckpt.records import HistoryPoint, Series

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
    history = tuple(HistoryPoint(id=r.id, epoch=r.epoch, score=r.score, created=r.created) for r in records)
    made = Series(monitor=monitor, mode=mode, history=history)
    return made._with_records(tuple(records[kept]))


def curve(*scores: float | None, run: str = "s3://bucket/run", **changes) -> Curve:
    return curve_of(run, TEMPLATE, series(*scores, **changes))


NOISE = random.Random(3)
CASES = {
    "one point": [curve(0.5)],
    "equal": [curve(0.5, 0.5, 0.5)],
    "min": [curve(3.0, 2.0, 2.5, 1.0, mode="min")],
    "not numbers": [curve(NAN, None, INF, -INF)],
    "some not numbers": [curve(0.1, NAN, 0.3, INF, 0.2)],
    "huge": [curve(1.7e308, -1.7e308, 1e299, -1e299, mode="min")],
    "thousandfold": [curve(1e6, 1e3, 1.0, 1e-3, mode="min")],
    "began again": [curve(0.1, 0.2, 0.3, 0.25, 0.4, epochs=[0, 1, 2, 1, 2])],
    "ten thousand": [curve(*(NOISE.random() for _ in range(10_000)))],
    "twenty runs": [curve(*(NOISE.random() for _ in range(30)), run=f"run-{number}") for number in range(20)],
    "sixty runs": [curve(NOISE.random(), run=f"run-{number}") for number in range(60)],
    "formula": [curve(0.5, run=r"$\frac{"), curve(0.4, run="_hidden $x$")],
    "far epoch": [curve(0.5, 0.6, epochs=[0, 1 << 53])],
}
