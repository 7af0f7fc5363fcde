"""Find the parts of a new object with the same bytes as in an earlier object, and cut the new object accordingly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from remote_ckpt.errors import StoreError
from remote_ckpt.stores.base import BLOCK, MIB, DeltaBase, Digests, Transfer, Version
from remote_ckpt.stores.s3 import objects
from remote_ckpt.stores.s3.session import S3Session
from remote_ckpt.stores.transfer.part_plan import MOST_PARTS, PartPlan, Range, evenly, in_a_row, widths

SMALLEST = 5 * MIB  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
COPIES = 8  # under way at once, beside what is sent

_COPY = 64 * MIB  # the service copies a range at about the speed of a disk, and several at once
_CELLS = MOST_PARTS // 2
_MOST_COPIES = MOST_PARTS // 10


@dataclass(frozen=True)
class Source:
    """An object in the store with ranges for copying, as long as the object stays at `version`.

    Attributes:
        key: Relative to the run.
        version: The ETag; each copy is made on condition of this version.
        size: Bytes.
        unchanged: The numbers, from 0, of the blocks of `BLOCK` bytes that are equal in the new object.
    """

    key: str
    version: Version
    size: int
    unchanged: frozenset[int]

    def holds(self, part: Range) -> bool:
        """Return whether the object has exactly the bytes of `part`, at the same place."""
        return all(block in self.unchanged for block in range(part.start // BLOCK, -(-part.end // BLOCK)))

    def request(self, session: S3Session, part: Range) -> dict[str, Any]:
        """Return the arguments of a request for a copy of `part`.

        A part that is the whole object is copied without a range: S3 copies no ranges of small objects.
        """
        whole = {
            "CopySource": {"Bucket": session.bucket, "Key": session.prefix + self.key},
            "CopySourceIfMatch": str(self.version),
        }
        if (part.start, part.end) == (0, self.size):
            return whole
        return {**whole, "CopySourceRange": f"bytes={part.start}-{part.end - 1}"}


async def find_source(session: S3Session, base: DeltaBase | None, digests: Digests) -> Source | None:
    """Return the base as a source of copies; None if no block of the base can be used. Raise no `StoreError`."""
    if base is None:
        return None
    unchanged = _unchanged(base.digests, digests)
    if not unchanged:
        return None
    try:
        info = await objects.head(session, base.key)
    except StoreError:
        return None  # the base is deleted, or may not be read; a copy only saves time, all parts can be sent instead
    # The base may have been replaced under its key: a different size or checksum means other bytes.
    trusted = info.crc32c in (None, base.digests.crc32c) or not session.whole_crc32c
    if info.size != base.digests.size or not trusted:
        return None
    return Source(base.key, info.version, info.size, unchanged)


def _unchanged(old: Digests, new: Digests) -> frozenset[int]:
    if (old.size, old.sha256) == (new.size, new.sha256):
        return frozenset(range(-(-new.size // BLOCK)))
    pairs = zip(old.blocks, new.blocks, strict=False)
    return frozenset(number for number, pair in enumerate(pairs) if pair[0] == pair[1])


def plan_delta(size: int, source: Source, transfer: Transfer, *, uneven: bool) -> PartPlan:
    """Cut an upload into a few large copies of unchanged bytes, and many small parts of changed bytes.

    Args:
        size: Bytes of the new object.
        source: The object from which ranges may be copied.
        transfer: The user's tuning.
        uneven: Whether the service accepts parts of different sizes (Cloudflare R2 does not). Otherwise all parts have
            the same size: one block, or several blocks where one would give too many parts.
    """
    width, widest = widths(transfer)
    if uneven:
        return PartPlan(in_a_row(_lengths(size, source, transfer)), width, widest)
    block = BLOCK * -(-size // (BLOCK * MOST_PARTS))
    return PartPlan(evenly(size, block), width, widest)


def _lengths(size: int, source: Source, transfer: Transfer) -> Iterator[int]:
    """Yield the sizes of the parts in bytes: at least `SMALLEST`, except at the object's end.

    A stretch of blocks is either all copied or all sent; its parts differ by at most one byte. Above 40 GiB, several
    blocks are taken as one, so that even alternating stretches do not give more parts than S3 allows.
    """
    cell = BLOCK * -(-size // (BLOCK * _CELLS))
    sent = max(transfer.part_size or 0, SMALLEST, -(-size // _CELLS))
    copied = max(_COPY, -(-size // _MOST_COPIES))
    for held, run in groupby(evenly(size, cell), key=source.holds):
        length = sum(part.size for part in run)
        count = -(-length // copied) if held else max(1, length // sent)
        each, more = divmod(length, count)
        yield from [each + 1] * more + [each] * (count - more)
