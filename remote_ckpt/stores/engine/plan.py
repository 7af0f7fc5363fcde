"""Into which parts a transfer is cut, and how many of them are under way at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from remote_ckpt.stores.base import MIB, Transfer
from remote_ckpt.stores.spans import Span

MOST_PARTS = 10_000  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_UPLOADS = 32  # parts under way at first
_MOST_UPLOADS = 64  # as many as the connection pools have room for
_USUAL = 6 * MIB  # bytes of one: what arrived is kept after a crash, what was half there is not
_NEAR = 0.004  # seconds of a round trip: a server on this machine or beside it
_NEAR_WIDTH = 4  # parts under way at first: there each connection is fast, and more of them only cost processor time
_NEAR_USUAL = 32 * MIB  # bytes of one: there a request costs more processor time than round trips
_DOWNLOADS = 32  # ranges under way
_LONG = 4 * MIB  # bytes of one
_HELD = 2 * MIB  # bytes of one in memory: what is being read or written, and what the connection holds meanwhile
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
class Plan:
    """How a transfer is cut.

    Attributes:
        parts: In order.
        width: How many are under way at once, at first.
        widest: How many may be, where more turn out to be faster.
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
        """What `with_lengths` makes the same parts of: how many parts of which size follow each other."""
        return [[len(list(alike)), size] for size, alike in groupby(part.size for part in self.parts)]


def in_a_row(sizes: Iterable[int]) -> tuple[Range, ...]:
    """Return parts of these sizes, one behind the other."""
    parts, start = list[Range](), 0
    for number, size in enumerate(sizes, 1):
        parts.append(Range(number, start, start + size))
        start += size
    return tuple(parts)


def evenly(size: int, part_size: int) -> tuple[Range, ...]:
    """Return parts of one size; the last may be shorter."""
    return in_a_row(min(part_size, size - start) for start in range(0, size, part_size))


def with_lengths(lengths: Any, size: int, *, smallest: int) -> tuple[Range, ...] | None:
    """Return the parts that a plan's `lengths` tell of; None if they are not a plan for `size` bytes that S3 takes."""
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
    """Return how many parts of an upload may be under way, at first and at most: the memory bound wins."""
    bound = max(1, transfer.memory // _HELD)
    if transfer.concurrency is not None:
        return (min(transfer.concurrency, bound),) * 2
    return min(_NEAR_WIDTH if round_trip < _NEAR else _UPLOADS, bound), min(_MOST_UPLOADS, bound)


def plan_upload(size: int, transfer: Transfer, *, smallest: int, round_trip: float = math.inf) -> Plan:
    """Cut an upload so that many connections share it until its end.

    One connection to an object store is slow and many are fast, so even a small object is cut; and the parts fill the
    window some whole number of times, because a last round of few parts leaves most connections idle. A part is read
    while it is sent: however long it is, it holds about `_HELD` bytes.

    Args:
        size: Bytes.
        transfer: What the user wants.
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
    return Plan(evenly(size, part), width, widest)


def plan_download(missing: Sequence[Span], transfer: Transfer, *, round_trip: float = math.inf) -> Plan:
    """Cut what is missing so that many connections share it, and its beginning is complete early.

    A range is written as it arrives, so that however long it is it holds about `_HELD` bytes: the memory bound limits
    how many are under way, and not how long they are. Shorter ranges would pay one more round trip each; longer ones
    would all end together, with the whole file left to be verified after its last byte. Near the server, where
    requests cost more than round trips, ranges are few and long.

    Args:
        missing: The bytes to be fetched.
        transfer: What the user wants.
        round_trip: Seconds of the quickest small request so far.
    """
    usual_width, usual = (_NEAR_WIDTH, _NEAR_USUAL) if round_trip < _NEAR else (_DOWNLOADS, _LONG)
    width = transfer.concurrency or usual_width
    size = sum(end - start for start, end in missing)
    part = transfer.part_size or max(MIB, _round_up(_divide_up(size, width * _divide_up(size, width * usual)), _GRAIN))
    pieces = ((at, min(at + part, end)) for start, end in missing for at in range(start, end, part))
    width = max(1, min(width, transfer.memory // _HELD))
    return Plan(tuple(Range(number, *piece) for number, piece in enumerate(pieces, 1)), width, width)


def _divide_up(number: int, by: int) -> int:
    return max(1, -(-number // by))


def _round_up(number: int, grain: int) -> int:
    return _divide_up(number, grain) * grain
