"""Deletion of a run's objects: one way for retention, `prune` and `sweep`.

For each object, one after the other:

1. the object is looked at: is it the one that was meant, and as old as it must be?
2. the manifest is read, whatever was read before: does it, or one of its segments, name the key by now?
3. the deletion is sent, on condition that the object is still as it was at 1.

In this order a checkpoint that was committed before 2 is seen to be named, and one that took the name after 1 is
another version. What is left is a commit, between 2 and 3, of an object that lay there unnamed for longer than a sweep
waits: `Publisher` looks after such a commit whether the object is still there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from remote_ckpt.checkpoint import Checkpoint, Manifest
from remote_ckpt.commit import Committer
from remote_ckpt.errors import ManifestError
from remote_ckpt.location import MANIFEST_KEY
from remote_ckpt.stores.base import ObjectInfo, Version

IsIt = Callable[[ObjectInfo], bool]


def object_of(record: Checkpoint) -> IsIt:
    """Return a test of whether an object is the one that `record` names, for one deletion and its repetitions.

    Names are used again: once an object is deleted, another writer may give its name to a checkpoint of the same epoch.
    """
    first: Version | None = None

    def is_it(found: ObjectInfo) -> bool:
        nonlocal first
        first = first or found.version  # nobody can have replaced it before the first attempt
        known = found.crc32c in (None, record.crc32c) and found.owner in (None, record.id)
        return known and (found.size, found.version) == (record.size, first)

    return is_it


@dataclass
class Deleter:
    """Deletes objects that nothing names.

    Attributes:
        committer: Of the run.
        seen: The manifest as it was when the objects were chosen. An older one, or none at all, is no view to delete
            on: it was lost, or put back, and does not name what it should.
    """

    committer: Committer
    seen: Manifest

    def delete(self, key: str, is_it: IsIt) -> bool:
        """Delete the object under `key` if it is the one that is meant and nothing names it.

        Args:
            key: Relative to the run.
            is_it: Asked at each attempt, with what is there then.

        Returns:
            Whether nothing is there now.

        Raises:
            ManifestError: The manifest, or what it speaks of, cannot be read, or is older than it was; the object
                stays.
            StoreError: The store refused.
        """
        return self.committer.store.delete_if(key, lambda found: is_it(found) and not self._is_named(key))

    def _is_named(self, key: str) -> bool:
        manifest = self.committer.load()
        if manifest.revision < self.seen.revision:
            raise ManifestError(
                f"{self.committer.location.url(MANIFEST_KEY)} is older than it was (revision {manifest.revision}, "
                f"after {self.seen.revision}): it was deleted or put back. Nothing is deleted on such a view."
            )
        return key == MANIFEST_KEY or key in self.committer.archive.keys(manifest)
