"""Delete objects of a run: the same way for retention, `prune` and `sweep`.

For each object, one after the other:

1. `stat` the object: is it the intended object, and old enough?
2. Read the manifest anew: does the manifest, or one of its segments, name the key by now?
3. Send the deletion, on condition that the object still has the version seen at 1.

In this order, a checkpoint committed before 2 is seen at 2, and an object created under the same name after 1 has
another version. One race remains: an object lay unnamed for longer than a sweep waits, and is committed between 2 and
3. So `Publisher` checks after a late commit whether the object is still there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from remote_ckpt.errors import ManifestError
from remote_ckpt.location import MANIFEST_KEY
from remote_ckpt.manifest import Committer
from remote_ckpt.records import Checkpoint, Manifest
from remote_ckpt.stores.base import ObjectInfo, Version

IsIt = Callable[[ObjectInfo], bool]


def object_of(record: Checkpoint) -> IsIt:
    """Return a predicate: is an object the same as in `record`? Make a new predicate for each deletion.

    The predicate is stateful: it remembers the version seen at the first attempt, and the attempts repeated after a
    lost answer accept only that version. Names are used again: once an object is deleted, another writer may give its
    name to a checkpoint of the same epoch.
    """
    first: Version | None = None

    def is_it(found: ObjectInfo) -> bool:
        nonlocal first
        first = first or found.version  # the first attempt: our deletion has not freed the name yet
        known = found.crc32c in (None, record.crc32c) and found.owner in (None, record.id)
        return known and (found.size, found.version) == (record.size, first)

    return is_it


@dataclass
class Deleter:
    """A deleter of objects not named by the manifest.

    Attributes:
        committer: The run's committer.
        seen: The manifest from which the objects were chosen. If the store has an older one by now, or none, the
            manifest was deleted or put back, and does not name all that it should: then nothing is deleted.
    """

    committer: Committer
    seen: Manifest

    def delete(self, key: str, is_it: IsIt) -> bool:
        """Delete the object under `key` if `is_it` accepts the object and no record names the key.

        Args:
            key: The object's key, relative to the run.
            is_it: Called at each attempt, with the object found then.

        Returns:
            Whether there is no object under `key` now.

        Raises:
            ManifestError: The manifest or a segment cannot be read, or the manifest is older than `seen`; the object
                stays.
            StoreError: The store refused.
        """
        # `is_it` first: the manifest must be read after the `stat`, see the module
        return self.committer.store.delete_if(key, lambda found: is_it(found) and not self._is_named(key))

    def _is_named(self, key: str) -> bool:
        manifest = self.committer.load()  # not `recall`: another writer may have committed the key since
        if manifest.revision < self.seen.revision:
            raise ManifestError(
                f"{self.committer.location.url(MANIFEST_KEY)} is older than it was (revision {manifest.revision}, "
                f"after {self.seen.revision}): it was deleted or put back. Nothing is deleted on such a view."
            )
        return key == MANIFEST_KEY or key in self.committer.archive.keys(manifest)
