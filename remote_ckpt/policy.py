"""Which checkpoint is better, and which are kept: pure functions over scores and records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from remote_ckpt.errors import DirectionError
from remote_ckpt.metric_names import Mode as Mode
from remote_ckpt.metric_names import mode_of


class Scored(Protocol):
    """What the rules look at."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def score(self) -> float | None: ...  # noqa: D102


class Timed(Protocol):
    """What the order of capture is read from."""

    @property
    def created(self) -> datetime: ...  # noqa: D102


S = TypeVar("S", bound=Scored)
T = TypeVar("T", bound=Timed)


def scalar(value: Any) -> float | None:
    """Return a metric as a float; None for all that is not one number.

    An array or tensor that holds a single number is one, whatever its shape: NumPy 2.4 refuses `float()` of it. An
    integer too large for a float is none.
    """
    try:
        while shape := tuple(getattr(value, "shape", ())):
            if shape[0] != 1:
                return None
            value = value[0]
        return None if isinstance(value, str | bytes) else float(value)
    except Exception:  # noqa: BLE001 - of any class that somebody logs; it is no number then
        return None


def is_number(score: float | None) -> bool:
    """Return whether `score` can be compared: not None, not NaN. Infinities can, and the right one beats all."""
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
    """Return which way a metric is better.

    Args:
        monitor: The metric's name; `val_` in front makes no difference.
        direction: The direction that the compiled metric itself gives, `"up"` or `"down"`, if any: it goes first.

    Raises:
        DirectionError: Neither the metric nor the words of its name decide, see `metric_names`.
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
    """Return the id of the best record, the first among equals; None when none has a number: then there is no best."""
    best: Scored | None = None
    for record in records:
        if is_better(record.score, best.score if best else None, mode):
            best = record
    return best.id if best else None


def by_capture(records: Iterable[T]) -> list[T]:
    """Return records in the order of their capture; the last one is the latest, everywhere.

    Args:
        records: In the order of their commits, which decides between equal times. Commits overtake each other, when
            several machines upload, or when `recover` or `push` bring an old checkpoint late.
    """
    return sorted(records, key=lambda record: record.created)


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
        records: One series' records, see `by_capture`.
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
