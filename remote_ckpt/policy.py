"""Rules for the best checkpoint and for retention: pure functions of scores and records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from remote_ckpt.errors import DirectionError
from remote_ckpt.metric_names import Mode as Mode
from remote_ckpt.metric_names import mode_of


class Scored(Protocol):
    """A record with an id and a score, as used by the rules."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def score(self) -> float | None: ...  # noqa: D102


class Timed(Protocol):
    """A record with a time of capture."""

    @property
    def created(self) -> datetime: ...  # noqa: D102


S = TypeVar("S", bound=Scored)
T = TypeVar("T", bound=Timed)


def scalar(value: Any) -> float | None:
    """Return a metric as a float; None for anything but a single number.

    An array or tensor that holds a single number counts as a number, of any shape: NumPy 2.4 refuses `float()` of such
    an array. The result is None for an integer too large for a float.
    """
    try:
        while shape := tuple(getattr(value, "shape", ())):
            if shape[0] != 1:
                return None
            value = value[0]
        return None if isinstance(value, str | bytes) else float(value)
    except Exception:  # noqa: BLE001 - logs may hold objects of any class, whose methods may raise anything
        return None


def is_number(score: float | None) -> bool:
    """Return whether `score` can be compared: neither None nor NaN. An infinity can be compared."""
    return score is not None and not math.isnan(score)


def is_better(score: float | None, best: float | None, mode: Mode) -> bool:
    """Return whether `score` beats `best`.

    NaN and None never beat a score, and any number beats NaN and None. An equal score does not beat.
    """
    if score is None or math.isnan(score):
        return False
    if best is None or math.isnan(best):
        return True
    return score < best if mode == "min" else score > best


def infer_mode(monitor: str, direction: str | None = None) -> Mode:
    """Return the direction of a metric: `"min"` or `"max"`.

    Args:
        monitor: The metric's name; `val_` in front makes no difference.
        direction: The direction given by the compiled metric, `"up"` or `"down"`, if any; used before the name.

    Raises:
        DirectionError: Neither the metric nor the words of its name give a direction, see `metric_names`.
    """
    if direction in ("up", "down"):
        return "max" if direction == "up" else "min"
    mode = mode_of(monitor.removeprefix("val_"))
    if mode is None:
        raise DirectionError(
            f"Nothing shows whether more of {monitor!r} is better, or less, and a guess could keep the worst model for "
            'the best. Pass mode="max" if more is better, or mode="min" if less is (--mode on the command line).'
        )
    return mode


def best_of(records: Sequence[Scored], mode: Mode) -> str | None:
    """Return the id of the best record, the first among equals; None (no best) if no record has a number as score."""
    best: Scored | None = None
    for record in records:
        if is_better(record.score, best.score if best else None, mode):
            best = record
    return best.id if best else None


def by_capture(records: Iterable[T]) -> list[T]:
    """Return records in the order of their capture. The last record is "the latest" everywhere in this package.

    Args:
        records: In the order of their commits, which decides between equal times. The order of commits may differ from
            the order of capture when several machines upload, or when `recover` or `push` adds an old checkpoint.
    """
    return sorted(records, key=lambda record: record.created)


def best_first(records: Sequence[S], mode: Mode) -> list[S]:
    """Return the records with the better ones first, in agreement with `best_of`.

    Records with equal scores keep their order. Records whose score is not a number come at the end, in reverse order.
    """
    sign = 1.0 if mode == "min" else -1.0
    ranked = sorted((r for r in records if is_number(r.score)), key=lambda record: sign * (record.score or 0.0))
    return [*ranked, *(r for r in reversed(records) if not is_number(r.score))]


def retained(records: Sequence[Scored], mode: Mode, keep_best: int | None, keep_last: int | None) -> set[str]:
    """Return the ids to keep of `records` (oldest first). The best and the latest are always kept.

    Args:
        records: One series' records, see `by_capture`.
        mode: Which direction is better.
        keep_best: How many of the best to keep; with None, only the best and those kept by `keep_last`.
        keep_last: How many of the latest to keep; with None, only the latest and those kept by `keep_best`.

    Returns:
        Ids. With both None: the ids of all records.
    """
    if (keep_best is None and keep_last is None) or not records:
        return {record.id for record in records}
    ranked = best_first([record for record in records if is_number(record.score)], mode)
    kept = {record.id for record in ranked[: max(keep_best or 1, 1)]}
    kept |= {record.id for record in records[-max(keep_last or 1, 1) :]}
    return kept
