"""Fewer points that draw the same picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def thinned(items: Sequence[T], most: int, height: Callable[[T], float | None]) -> list[T]:
    """Return at most about `most` items, in their order: of each stretch both ends and both extremes.

    Of equally high ones the first is taken, so an item that was the best so far at the end of its stretch is kept.

    Args:
        items: In the order in which they are drawn.
        most: A few times the width of the picture in pixels, and nobody sees the difference.
        height: How high an item is drawn; None where it is not.
    """
    if len(items) <= most:
        return list(items)
    length = math.ceil(4 * len(items) / most)
    return [
        items[begin + place]
        for begin in range(0, len(items), length)
        for place in _telling([height(item) for item in items[begin : begin + length]])
    ]


def _telling(heights: Sequence[float | None]) -> list[int]:
    known = [(height, place) for place, height in enumerate(heights) if height is not None]
    kept = {0, len(heights) - 1}
    if known:
        kept |= {min(known)[1], max(known, key=lambda one: (one[0], -one[1]))[1]}
    return sorted(kept)
