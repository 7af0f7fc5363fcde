"""Into which parts a transfer is cut, and how many of them are under way at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from remote_ckpt.spans import Span
from remote_ckpt.stores.base import BLOCK, MIB, Transfer

MOST_PARTS = 10_000  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_WIDTH = 16
_WIDE = 24  # for what fits into memory as a whole: all of it under way at once
_USUAL = 6 * MIB  # times the width: three quarters of the default memory, because allocators keep some for themselves
_GRAIN = 64 * 1024
_DOWNLOADS = 32  # ranges under way
_LONG = 4 * MIB  # bytes of one
_HELD = 2 * MIB  # bytes of one in memory: what is being written, and what the connection has read meanwhile


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
    """How a transfer of `size` bytes is cut: parts of `part_size`, at most `width` under way."""

    size: int
    part_size: int
    width: int

    def __iter__(self) -> Iterator[Range]:
        for number, start in enumerate(range(0, self.size, self.part_size), 1):
            yield Range(number, start, min(start + self.part_size, self.size))


@dataclass(frozen=True)
class DownloadPlan:
    """How what is missing of an object is cut: in order, at most `width` ranges under way."""

    ranges: list[Range]
    width: int


def plan_download(missing: Sequence[Span], transfer: Transfer) -> DownloadPlan:
    """Cut what is missing so that many connections share it, and its beginning is complete early.

    A range is written as it arrives, so that however long it is it holds about `_HELD` bytes: the memory bound limits
    how many are under way, and not how long they are. Shorter ranges would pay one more round trip each; longer ones
    would all end together, with the whole file left to be verified after its last byte.
    """
    width = transfer.concurrency or _DOWNLOADS
    size = sum(end - start for start, end in missing)
    part = transfer.part_size or max(MIB, _round_up(_divide_up(size, width * _divide_up(size, width * _LONG)), _GRAIN))
    pieces = ((at, min(at + part, end)) for start, end in missing for at in range(start, end, part))
    ranges = [Range(number, *piece) for number, piece in enumerate(pieces, 1)]
    return DownloadPlan(ranges, max(1, min(width, transfer.memory // _HELD)))


def make_plan(size: int, transfer: Transfer, *, smallest: int, aligned: bool = False) -> Plan:
    """Cut a transfer so that the window is full until the end, and its parts fit the memory bound.

    One connection to an object store is slow and many are fast, so even a small object is cut; and the number of parts
    is a multiple of the window, because a last round of few parts leaves most connections idle.

    Args:
        size: Bytes.
        transfer: What the user wants; the memory bound wins over the concurrency.
        smallest: Bytes of the smallest part allowed (S3: 5 MiB).
        aligned: Whether parts should begin where the blocks of `Digests` begin, so that unchanged ones can be found.
    """
    width = transfer.concurrency or (_WIDE if size <= transfer.memory else _WIDTH)
    if transfer.part_size is not None:
        part = transfer.part_size
    elif aligned:
        part = BLOCK
    else:
        part = _round_up(_divide_up(size, width * _divide_up(size, width * _USUAL)), _GRAIN)
    part = max(part, smallest, _round_up(_divide_up(size, MOST_PARTS), MIB))
    return Plan(size, part, max(1, min(width, transfer.memory // part)))


def _divide_up(number: int, by: int) -> int:
    return max(1, -(-number // by))


def _round_up(number: int, grain: int) -> int:
    return _divide_up(number, grain) * grain
