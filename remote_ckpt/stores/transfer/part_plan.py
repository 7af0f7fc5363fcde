"""Plan the parts of a transfer, and the number of parts under way at the same time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from remote_ckpt.stores.base import MIB, Transfer
from remote_ckpt.stores.byte_ranges import Span

MOST_PARTS = 10_000  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_UPLOADS = 32  # parts under way at first
_MOST_UPLOADS = 64  # as many as the connection pools have room for
_USUAL = 6 * MIB  # bytes of a part: after a crash, complete parts are kept and incomplete parts are sent again
_NEAR = 0.004  # seconds of a round trip: a server on this machine or beside it
_NEAR_WIDTH = 4  # parts under way at first: there each connection is fast, and more of them only cost processor time
_NEAR_USUAL = 32 * MIB  # bytes of a part: there a request costs more in processor time than in round trips
_DOWNLOADS = 32  # ranges under way
_LONG = 4 * MIB  # bytes of a range
_HELD = 2 * MIB  # bytes in memory for a part: those being read or written, and those in the connection's buffers
_GRAIN = 64 * 1024


@dataclass(frozen=True)
class Range:
    """A part of an object: `number` counts from 1, as S3 does; bytes are [start, end)."""

    number: int
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


@dataclass(frozen=True)
class PartPlan:
    """The parts of a transfer.

    Attributes:
        parts: In order.
        width: How many parts are under way at the same time, at first.
        widest: How many parts may be under way later, if more turn out to be faster.
    """

    parts: tuple[Range, ...]
    width: int
    widest: int

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(part.size for part in self.parts)

    @property
    def lengths(self) -> list[list[int]]:
        """The sizes of the parts as pairs of count and bytes, for the journal; `with_lengths` is the reverse."""
        return [[len(list(alike)), size] for size, alike in groupby(part.size for part in self.parts)]


def in_a_row(sizes: Iterable[int]) -> tuple[Range, ...]:
    """Return consecutive parts of these sizes."""
    parts, start = list[Range](), 0
    for number, size in enumerate(sizes, 1):
        parts.append(Range(number, start, start + size))
        start += size
    return tuple(parts)


def evenly(size: int, part_size: int) -> tuple[Range, ...]:
    """Return parts of the same size; the last part may be shorter."""
    return in_a_row(min(part_size, size - start) for start in range(0, size, part_size))


def with_lengths(lengths: Any, size: int, *, smallest: int) -> tuple[Range, ...] | None:
    """Return the parts of a plan from `PartPlan.lengths`; None if `lengths` is no valid plan for `size` bytes.

    `lengths` comes from a journal and may be anything. A valid plan has at most `MOST_PARTS` parts, each but the last
    with at least `smallest` bytes.
    """
    try:
        pairs = [(int(count), int(length)) for count, length in lengths]
    except (TypeError, ValueError, OverflowError):
        return None
    fits = all(count > 0 and length > 0 for count, length in pairs) and sum(count for count, _ in pairs) <= MOST_PARTS
    if not fits or sum(count * length for count, length in pairs) != size:
        return None
    parts = in_a_row(length for count, length in pairs for _ in range(count))
    return parts if all(part.size >= smallest for part in parts[:-1]) else None


def widths(transfer: Transfer, round_trip: float = math.inf) -> tuple[int, int]:
    """Return how many parts of an upload may be under way, at first and at most; never beyond the memory bound."""
    bound = max(1, transfer.memory // _HELD)
    if transfer.concurrency is not None:
        return (min(transfer.concurrency, bound),) * 2
    return min(_NEAR_WIDTH if round_trip < _NEAR else _UPLOADS, bound), min(_MOST_UPLOADS, bound)


def plan_upload(size: int, transfer: Transfer, *, smallest: int, round_trip: float = math.inf) -> PartPlan:
    """Plan an upload so that many connections are busy until the end.

    A single connection to an object store is slow and many are fast, so even a small object is cut. The parts fill the
    window a whole number of times, because a last round of few parts leaves most connections idle. A part is read while
    it is sent: a part of any length needs about `_HELD` bytes of memory.

    Args:
        size: Bytes of the object.
        transfer: The user's tuning.
        smallest: Bytes of the smallest part allowed (S3: 5 MiB).
        round_trip: Seconds of the quickest small request so far.
    """
    width, widest = widths(transfer, round_trip)
    usual = _NEAR_USUAL if round_trip < _NEAR else _USUAL
    even = _round_up(_divide_up(size, width * _divide_up(size, width * usual)), _GRAIN)
    part = max(transfer.part_size or even, smallest, _round_up(_divide_up(size, MOST_PARTS), MIB))
    if transfer.concurrency is None:
        count = _divide_up(size, part)
        width = _divide_up(count, _divide_up(count, width))
    return PartPlan(evenly(size, part), width, widest)


def plan_download(missing: Sequence[Span], transfer: Transfer, *, round_trip: float = math.inf) -> PartPlan:
    """Plan a download so that many connections are busy, and the beginning of the file is complete early.

    A range is written as it arrives, so a range of any length needs about `_HELD` bytes of memory: the memory bound
    limits how many ranges are under way, not their length. With shorter ranges, more of the time would be round trips.
    Longer ranges would all end at the same time, and the whole file would have to be verified after the last byte. Near
    the server, where requests cost more than round trips, ranges are few and long.

    Args:
        missing: The bytes to be fetched.
        transfer: The user's tuning.
        round_trip: Seconds of the quickest small request so far.
    """
    usual_width, usual = (_NEAR_WIDTH, _NEAR_USUAL) if round_trip < _NEAR else (_DOWNLOADS, _LONG)
    width = transfer.concurrency or usual_width
    size = sum(end - start for start, end in missing)
    part = transfer.part_size or max(MIB, _round_up(_divide_up(size, width * _divide_up(size, width * usual)), _GRAIN))
    pieces = ((at, min(at + part, end)) for start, end in missing for at in range(start, end, part))
    width = max(1, min(width, transfer.memory // _HELD))
    return PartPlan(tuple(Range(number, *piece) for number, piece in enumerate(pieces, 1)), width, width)


def _divide_up(number: int, by: int) -> int:
    return max(1, -(-number // by))


def _round_up(number: int, grain: int) -> int:
    return _divide_up(number, grain) * grain
