"""Axes: the place of a number along an axis, and the round numbers beside the axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_DECADES = 3.0  # beyond a factor of 1,000 between the extremes, an axis is logarithmic
_SAME = 1e-12  # relative; closer numbers would have the same place on an axis
_TINY = 1e-290  # for smaller numbers the distance of two ticks may underflow


@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low: The number at the beginning; its decimal logarithm if `log`.
        high: The number at the end, likewise; greater than `low`.
        log: Whether the axis is logarithmic.
        whole: Whether only whole numbers are written beside the axis.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @classmethod
    def over(cls, values: Iterable[float], *, margin: float = 0.05, whole: bool = False) -> Scale:
        """Return an axis for finite values, with a margin at both ends; logarithmic if they span over a thousandfold.

        Args:
            values: Finite, and small enough that their span is finite too. Without values, the axis goes from 0 to 1.
            margin: At each end, as a share of the span.
            whole: Whether the values are whole numbers; then the axis is never logarithmic.
        """
        held = sorted(values) or [0.0, 1.0]
        low, high = held[0], held[-1]
        log = not whole and needs_log(held)
        if log:
            low, high = math.log10(low), math.log10(high)
        if high - low <= max(abs(low), abs(high), _TINY) * _SAME:
            spread = max(1.0, abs(low) * 1e-9) if whole or abs(low) < _TINY else abs(low) * 0.05
            low, high = low - spread, high + spread
        room = (high - low) * margin
        return cls(low - room, high + room, log, whole)

    def at(self, value: float) -> float:
        """Return the place of `value`: 0 at the beginning, 1 at the end."""
        return ((math.log10(value) if self.log else value) - self.low) / (self.high - self.low)

    def ticks(self, about: int) -> list[tuple[float, str]]:
        """Return round numbers, roughly `about` of them, as pairs of place (0 to 1) and text."""
        step = _round_step((self.high - self.low) / about)
        if self.whole or self.log:
            step = max(1.0, step)
        first = math.ceil(self.low / step)
        places = [n * step for n in range(first, first + 2 * about + 2) if n * step <= self.high]
        if self.log:
            return [
                (self._along(place), f"{10.0**place:.0e}" if abs(place) > 4 else f"{10.0**place:g}") for place in places
            ]
        return [(self._along(place), _text(place, step)) for place in places]

    def _along(self, place: float) -> float:
        return (place - self.low) / (self.high - self.low)


def needs_log(values: Iterable[float]) -> bool:
    """Return whether the values need a logarithmic axis: all positive, and spanning a factor of more than 1,000."""
    held = list(values)
    return bool(held) and min(held) > 0 and math.log10(max(held)) - math.log10(min(held)) > _DECADES


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next((factor * power for factor in (1.0, 2.0, 5.0) if factor * power >= step), 10.0 * power)


def _text(value: float, step: float) -> str:
    """Return the text of a tick, with enough digits to differ from the neighbouring ticks."""
    digits = -math.floor(math.log10(step) + 1e-9)
    zero = abs(value) < step * 1e-6
    if digits <= 6 and abs(value) < 1e7:
        return f"{0.0 if zero else value:.{max(0, digits)}f}"
    return "0" if zero else f"{value:.{max(0, math.floor(math.log10(abs(value))) + digits)}e}"
