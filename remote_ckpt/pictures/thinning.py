"""Reduction of points to fewer points, with the same picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def thinned(items: Sequence[T], most: int, height: Callable[[T], float | None]) -> list[T]:
    """Return about `most` items or fewer, in their order: of each stretch both ends and both extremes.

    Of equally high items of a stretch the first is kept: so is the item that was the best so far at the end of the
    stretch.

    Args:
        items: In the order in which they are drawn.
        most: With a few times the picture's width in pixels, the difference is invisible.
        height: Returns the height at which an item is drawn; None for an item that is not drawn.
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
