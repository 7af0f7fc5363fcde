"""Which checkpoint is better, and which are kept: pure functions over scores and records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

Mode = Literal["min", "max"]


class Scored(Protocol):
    """What the rules look at."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def score(self) -> float | None: ...  # noqa: D102


S = TypeVar("S", bound=Scored)


def is_number(score: float | None) -> bool:
    """Return whether `score` can be compared: not None, not NaN. Infinities can."""
    return score is not None and not math.isnan(score)


def is_better(score: float | None, best: float | None, mode: Mode) -> bool:
    """Return whether `score` beats `best`.

    NaN and None never win and never stand in a number's way; a tie does not win.
    """
    if score is None or math.isnan(score):
        return False
    if best is None or math.isnan(best):
        return True
    return score < best if mode == "min" else score > best


def infer_mode(monitor: str, direction: str | None = None) -> Mode:
    """Return the direction of a metric.

    Args:
        monitor: The metric's name; `val_` in front makes no difference.
        direction: What the compiled metric says of itself, `"up"` or `"down"`, if anything.

    Keras raises for `val_auc` or `val_precision` when the metric does not say its direction; like Keras 2, we
    then take names that speak of accuracy, area, precision, recall or F-scores as "max", and all others as "min".
    """
    name = monitor.removeprefix("val_").lower()
    if name == "loss" or name.endswith("_loss"):
        return "min"
    if direction in ("up", "down"):
        return "max" if direction == "up" else "min"
    rising = (
        "acc",
        "auc",
        "precision",
        "recall",
        "fmeasure",
        "f1",
        "fbeta",
        "iou",
        "similarity",
        "r2",
        "dice",
        "bleu",
    )
    return "max" if any(word in name for word in rising) else "min"


def best_of(records: Sequence[Scored], mode: Mode) -> str | None:
    """Return the id of the best record: the first among equals; the last of all when none has a number."""
    best: Scored | None = None
    for record in records:
        if is_better(record.score, best.score if best else None, mode):
            best = record
    if best is None and records:
        best = records[-1]
    return best.id if best else None


def best_first(records: Sequence[S], mode: Mode) -> list[S]:
    """Return the records with the better ones first, in agreement with `best_of`.

    Equals stay in their order; those without a number come at the end, the last one first.
    """
    sign = 1.0 if mode == "min" else -1.0
    ranked = sorted((r for r in records if is_number(r.score)), key=lambda record: sign * (record.score or 0.0))
    return [*ranked, *(r for r in reversed(records) if not is_number(r.score))]


def retained(records: Sequence[Scored], mode: Mode, keep_best: int | None, keep_last: int | None) -> set[str]:
    """Return the ids to keep of `records` (oldest first). The best and the latest are always kept.

    Args:
        records: One series' records in the order of their commits.
        mode: Which direction is better.
        keep_best: How many of the best to keep; None leaves the choice to `keep_last`.
        keep_last: How many of the latest to keep; None leaves the choice to `keep_best`.

    Returns:
        Ids. With both None: all of them.
    """
    if (keep_best is None and keep_last is None) or not records:
        return {record.id for record in records}
    ranked = best_first([record for record in records if is_number(record.score)], mode)
    kept = {record.id for record in ranked[: max(keep_best or 1, 1)]}
    kept |= {record.id for record in records[-max(keep_last or 1, 1) :]}
    return kept
