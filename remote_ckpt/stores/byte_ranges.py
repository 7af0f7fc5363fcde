"""Sets of byte ranges, such as the ranges of a file already downloaded."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

Span = tuple[int, int]
"""Bytes [start, end)."""


class Spans:
    """A set of bytes, kept as disjoint ranges in order; not thread-safe."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Add bytes [start, end); the range may touch or overlap earlier ranges."""
        if start >= end:
            return
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]

    @property
    def total(self) -> int:
        """The number of bytes in the set."""
        return sum(self._ends) - sum(self._starts)

    @property
    def prefix(self) -> int:
        """The number of bytes from 0 up to the first gap."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    def gaps(self, size: int) -> list[Span]:
        """Return, in order, the ranges missing from a file of `size` bytes."""
        edges = zip([0, *self._ends], [*self._starts, size], strict=True)
        return [(start, end) for start, end in edges if start < end]
