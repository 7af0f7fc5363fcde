"""Whether the objects that records name are there: the one rule for what is missing, and for what is there again.

An object is a checkpoint's when it has its key and its size: half of one, as a copy that broke off leaves it, is none.
One wrong "not found" must not cost the best, so an object is missing only when a listing agrees. One look that finds it
is enough to count it again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from remote_ckpt.checkpoint import Checkpoint, Series
from remote_ckpt.errors import ObjectNotFoundError
from remote_ckpt.stores.base import MOST_LISTED, ObjectInfo, ObjectStore

log = logging.getLogger("remote_ckpt")

MOST_LOOKED_FOR = 20
"""Records marked as missing that are looked for one by one; of more, a listing is made."""

_MOST_CONFIRMED = 100  # records that a listing does not have, of which the store is asked one by one
_TOGETHER = 8  # requests at once


@dataclass
class Presence:
    """Looks for objects. What is there is looked at once: a second look would cost a commit's next round its chance.

    What is not there may be there in the next round, under a name that was free for a moment. Threads: any.
    """

    store: ObjectStore
    _there: set[str] = field(default_factory=set)  # ids of records, and fixed names

    def exists(self, key: str) -> bool:
        """Return whether any object has this key.

        Raises:
            StoreError: The store refused.
        """
        return self._confirmed(key, key, lambda _found: True)

    def is_there(self, record: Checkpoint) -> bool:
        """Return whether the record's own object is there.

        Raises: as `exists`.
        """
        return self._confirmed(record.id, record.key, lambda found: _fits(found, record))

    def absent(self, records: Collection[Checkpoint]) -> set[str]:
        """Return the ids of the records whose objects are not there: those that a listing lacks, and a look too.

        Raises: as `exists`.
        """
        if not records:
            return set()
        listed = {found.key: found for found in islice(self.store.scan(), MOST_LISTED)}
        lost = [record for record in records if (found := listed.get(record.key)) is None or not _fits(found, record)]
        with ThreadPoolExecutor(_TOGETHER) as pool:
            first = lost[:_MOST_CONFIRMED]
            found_again = [
                record.id for record, found in zip(first, pool.map(self._looks, first), strict=True) if found
            ]
        return {record.id for record in lost}.difference(found_again)

    def looked_for(self, series: Series) -> Series:
        """Return a series in which records count again that were missing and are there; looks only if any is marked.

        Looked for are those at hand: what may be the best or the latest again stays at hand, see `segments.frozen`.

        Raises: as `exists`.
        """
        marked = [record for record in series.checkpoints if record.missing]
        if not marked:
            return series
        if len(marked) > MOST_LOOKED_FOR:
            lost = self.absent(marked)
        else:
            with ThreadPoolExecutor(_TOGETHER) as pool:
                there = list(pool.map(self._looks, marked))
            lost = {record.id for record, found in zip(marked, there, strict=True) if not found}
        back = [record for record in marked if record.id not in lost]
        for record in back:
            log.info("%s is there again, and counts again.", record.url or record.key)
        return series.marked({record.id for record in back}, missing=False)

    def _looks(self, record: Checkpoint) -> bool:
        try:
            return _fits(self.store.stat(record.key), record)
        except ObjectNotFoundError:
            return False

    def _confirmed(self, name: str, key: str, fits: Callable[[ObjectInfo], bool]) -> bool:
        if name not in self._there and self._is_found(key, fits):
            self._there.add(name)
        return name in self._there

    def _is_found(self, key: str, fits: Callable[[ObjectInfo], bool]) -> bool:
        try:
            if fits(self.store.stat(key)):
                return True
        except ObjectNotFoundError:
            pass
        return any(found.key == key and fits(found) for found in self.store.scan(key))


def _fits(found: ObjectInfo, record: Checkpoint) -> bool:
    return found.size == record.size
