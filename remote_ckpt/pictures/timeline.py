"""The times at which checkpoints were captured, and the delays until each was in the bucket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from remote_ckpt.formatting import time_unit
from remote_ckpt.pictures.curves import Curve
from remote_ckpt.records import Checkpoint

Dot = tuple[float, float]


@dataclass(frozen=True)
class Timeline:
    """Dots, curve by curve.

    Attributes:
        title: The meaning of the heights, with the unit.
        along: The meaning of the horizontal axis, with the unit.
        dots: For each curve, in the order of capture: (time, height), in these units.
    """

    title: str
    along: str
    dots: tuple[tuple[Dot, ...], ...]


def timeline(curves: Sequence[Curve]) -> Timeline:
    """Return the checkpoints still in the runs, by the time since the first one of each curve.

    The heights are the times from capture until the object was in the bucket. If no record has an upload time (earlier
    versions of this package recorded none), the heights are the objects' sizes.
    """
    waits = [waits_of(curve) for curve in curves]
    if any(waits):
        unit, length = time_unit(max(wait for each in waits for _, wait in each))
        return _timeline(f"From capture until in the bucket ({unit})", waits, length)
    sizes = [[(_since_first(curve, record), float(record.size)) for record in curve.records] for curve in curves]
    unit, length = _size_unit(max((size for each in sizes for _, size in each), default=0))
    return _timeline(f"Size of each checkpoint ({unit})", sizes, length)


def waits_of(curve: Curve) -> list[Dot]:
    """Return (seconds since the first capture, seconds from capture to upload) for each record with an upload time.

    The second number is never negative, even if a clock was set back or capture and upload used different clocks.
    """
    return [
        (_since_first(curve, record), max(0.0, (record.uploaded - record.created).total_seconds()))
        for record in curve.records
        if record.uploaded is not None
    ]


def _since_first(curve: Curve, record: Checkpoint) -> float:
    return (record.created - curve.records[0].created).total_seconds()


def _timeline(title: str, seconds: Sequence[Sequence[Dot]], height: float) -> Timeline:
    unit, length = time_unit(max((when for each in seconds for when, _ in each if when > 1), default=1.0))
    dots = tuple(tuple((when / length, high / height) for when, high in each) for each in seconds)
    return Timeline(title, f"time since the run's first checkpoint ({unit})", dots)


def _size_unit(largest: float) -> tuple[str, float]:
    units = (("bytes", 1.0), ("kB", 1e3), ("MB", 1e6))
    return next(((unit, length) for unit, length in units if largest < 1000 * length), ("GB", 1e9))
