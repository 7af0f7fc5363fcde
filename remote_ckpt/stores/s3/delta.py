"""Which parts of a new object an earlier one already holds."""

from __future__ import annotations

from dataclasses import dataclass

from remote_ckpt.errors import StoreError
from remote_ckpt.stores.base import BLOCK, Base, Digests, Version
from remote_ckpt.stores.engine.plan import Range
from remote_ckpt.stores.s3 import objects
from remote_ckpt.stores.s3.session import S3Session


@dataclass(frozen=True)
class Source:
    """An object in the store whose ranges may be copied, as long as it stays at `version`."""

    key: str
    version: Version
    unchanged: frozenset[int]

    def holds(self, part: Range) -> bool:
        """Return whether the object has the very bytes of `part`, at the same place."""
        return all(block in self.unchanged for block in range(part.start // BLOCK, -(-part.end // BLOCK)))


async def find_source(session: S3Session, base: Base | None, digests: Digests) -> Source | None:
    """Return the base as a source of copies; None if nothing of it can be used, for whatever reason."""
    if base is None:
        return None
    pairs = zip(base.digests.blocks, digests.blocks, strict=False)
    unchanged = frozenset(number for number, (old, new) in enumerate(pairs) if old == new)
    if not unchanged:
        return None
    try:
        info = await objects.head(session, base.key)
    except StoreError:
        return None  # it would have saved time; sending is always possible
    trusted = info.crc32c in (None, base.digests.crc32c) or not session.whole_crc32c
    if info.size != base.digests.size or not trusted:
        return None
    return Source(base.key, info.version, unchanged)
