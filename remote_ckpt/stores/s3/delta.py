"""Which parts of a new object an earlier one already holds, and how to cut the new one for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from remote_ckpt.errors import StoreError
from remote_ckpt.stores.base import BLOCK, MIB, Base, Digests, Transfer, Version
from remote_ckpt.stores.engine.plan import MOST_PARTS, Plan, Range, evenly, in_a_row, widths
from remote_ckpt.stores.s3 import objects
from remote_ckpt.stores.s3.session import S3Session

SMALLEST = 5 * MIB  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
COPIES = 8  # under way at once, beside what is sent

_COPY = 64 * MIB  # the service copies a range at about the speed of a disk, and several at once
_CELLS = MOST_PARTS // 2
_MOST_COPIES = MOST_PARTS // 10


@dataclass(frozen=True)
class Source:
    """An object in the store whose ranges may be copied, as long as it stays at `version`."""

    key: str
    version: Version
    size: int
    unchanged: frozenset[int]

    def holds(self, part: Range) -> bool:
        """Return whether the object has the very bytes of `part`, at the same place."""
        return all(block in self.unchanged for block in range(part.start // BLOCK, -(-part.end // BLOCK)))

    def request(self, session: S3Session, part: Range) -> dict[str, Any]:
        """Return what asks for a copy of `part`; of a small object S3 copies no ranges, but the whole."""
        whole = {
            "CopySource": {"Bucket": session.bucket, "Key": session.prefix + self.key},
            "CopySourceIfMatch": str(self.version),
        }
        if (part.start, part.end) == (0, self.size):
            return whole
        return {**whole, "CopySourceRange": f"bytes={part.start}-{part.end - 1}"}


async def find_source(session: S3Session, base: Base | None, digests: Digests) -> Source | None:
    """Return the base as a source of copies; None if nothing of it can be used, for whatever reason."""
    if base is None:
        return None
    unchanged = _unchanged(base.digests, digests)
    if not unchanged:
        return None
    try:
        info = await objects.head(session, base.key)
    except StoreError:
        return None  # it would have saved time; sending is always possible
    trusted = info.crc32c in (None, base.digests.crc32c) or not session.whole_crc32c
    if info.size != base.digests.size or not trusted:
        return None
    return Source(base.key, info.version, info.size, unchanged)


def _unchanged(old: Digests, new: Digests) -> frozenset[int]:
    if (old.size, old.sha256) == (new.size, new.sha256):
        return frozenset(range(-(-new.size // BLOCK)))
    pairs = zip(old.blocks, new.blocks, strict=False)
    return frozenset(number for number, pair in enumerate(pairs) if pair[0] == pair[1])


def plan_delta(size: int, source: Source, transfer: Transfer, *, uneven: bool) -> Plan:
    """Cut an upload so that what is unchanged is few large copies, and what changed is many small parts.

    Args:
        size: Bytes.
        source: What may be copied.
        transfer: What the user wants.
        uneven: Whether the service takes parts of different sizes (Cloudflare R2 does not); else all are one block.
    """
    width, widest = widths(transfer)
    if uneven:
        return Plan(in_a_row(_lengths(size, source, transfer)), width, widest)
    block = BLOCK * -(-size // (BLOCK * MOST_PARTS))
    return Plan(evenly(size, block), width, widest)


def _lengths(size: int, source: Source, transfer: Transfer) -> Iterator[int]:
    """Yield the parts' sizes: those of a run are equal, and at least `SMALLEST`, except at the object's end.

    Beyond 40 GiB blocks are taken together, so that even of runs that alternate there are not too many parts.
    """
    cell = BLOCK * -(-size // (BLOCK * _CELLS))
    sent = max(transfer.part_size or 0, SMALLEST, -(-size // _CELLS))
    copied = max(_COPY, -(-size // _MOST_COPIES))
    for held, run in groupby(evenly(size, cell), key=source.holds):
        length = sum(part.size for part in run)
        count = -(-length // copied) if held else max(1, length // sent)
        each, more = divmod(length, count)
        yield from [each + 1] * more + [each] * (count - more)
