"""Checks of whether the objects of records exist: the only rule for "missing" and "present again".

An object belongs to a record if it has the record's key and size: an incomplete object, from a copy that broke off, is
not counted. A single wrong "not found" must not cost the best; so an object is missing only if a listing lacks it too.
A single request that finds the object is enough to count its record again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from remote_ckpt.errors import ObjectNotFoundError
from remote_ckpt.records import Checkpoint, Series
from remote_ckpt.stores.base import MOST_LISTED, ObjectInfo, ObjectStore

log = logging.getLogger("remote_ckpt")

MOST_LOOKED_FOR = 20
"""Up to this many records marked as missing are looked for one by one; for more, one listing is made."""

_MOST_CONFIRMED = 100  # of the records lacking in a listing, how many are looked for one by one
_TOGETHER = 8  # requests at once


@dataclass
class Presence:
    """A check for objects in the store. A found object is remembered for the lifetime of this instance.

    Looking again in each round of a commit would take time, in which another writer commits first. An object that was
    not found is looked for again: its name may have been free only for a moment. Threads: any.
    """

    store: ObjectStore
    _there: set[str] = field(default_factory=set)  # ids of records, and fixed names, found so far

    def exists(self, key: str) -> bool:
        """Return whether any object has this key.

        Raises:
            StoreError: The store refused.
        """
        return self._confirmed(key, key, lambda _found: True)

    def is_there(self, record: Checkpoint) -> bool:
        """Return whether an object with the record's key and size exists.

        Raises: as `exists`.
        """
        return self._confirmed(record.id, record.key, lambda found: _fits(found, record))

    def absent(self, records: Collection[Checkpoint]) -> set[str]:
        """Return the ids of records whose object is lacking in a listing and in a direct look.

        Only the first `_MOST_CONFIRMED` lacking records are looked for directly; of the others the listing decides. A
        listing ends after `MOST_LISTED` objects.

        Raises: as `exists`.
        """
        if not records:
            return set()
        listed = {found.key: found for found in islice(self.store.scan(), MOST_LISTED)}
        # A listing ends at `MOST_LISTED`, and a "not found" may be wrong once: so a direct look may correct it.
        lost = [record for record in records if (found := listed.get(record.key)) is None or not _fits(found, record)]
        with ThreadPoolExecutor(_TOGETHER) as pool:
            first = lost[:_MOST_CONFIRMED]
            found_again = [
                record.id for record, found in zip(first, pool.map(self._looks, first), strict=True) if found
            ]
        return {record.id for record in lost}.difference(found_again)

    def looked_for(self, series: Series) -> Series:
        """Return a series without the mark "missing" on records whose object is there again.

        Only loaded records are looked for; a missing record that may become the best again is never moved to a segment,
        see `segments.frozen`. Without marked records no request is made.

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
        except ObjectNotFoundError:  # may be wrong once: the listing below decides
            pass
        return any(found.key == key and fits(found) for found in self.store.scan(key))


def _fits(found: ObjectInfo, record: Checkpoint) -> bool:
    return found.size == record.size
