"""Deletion of pruned checkpoints, of orphans, and of unfinished uploads left by interrupted writers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone

from remote_ckpt.errors import InvalidRequestError, LocationError
from remote_ckpt.location import HIDDEN, NameTemplate
from remote_ckpt.manifest import Committer
from remote_ckpt.manifest.deletion import Deleter, object_of
from remote_ckpt.records import Checkpoint, Manifest
from remote_ckpt.stores.base import ObjectInfo

log = logging.getLogger("remote_ckpt")

ORPHAN_AGE = timedelta(days=1)
"""The age below which an object may belong to a commit that is still under way."""

_SPOOL = f"{HIDDEN}/spool/"


def delete_pruned(committer: Committer, manifest: Manifest, gone: Iterable[Checkpoint]) -> None:
    """Delete the objects of pruned records.

    An object whose key the manifest names again by the time of its deletion stays, see `Deleter`.

    Args:
        committer: Of the run.
        manifest: The manifest after pruning.
        gone: The records that were pruned.

    Raises: as `Deleter.delete`. Objects that were not deleted are orphans from then on, see `sweep_orphans`.
    """
    deleter = Deleter(committer, manifest)
    for checkpoint in gone:
        deleter.delete(checkpoint.key, object_of(checkpoint))


def sweep_orphans(committer: Committer, older_than: timedelta, *, dry_run: bool) -> list[str]:
    """Delete the run's orphans, see `Run.sweep`; return the deleted keys, or with `dry_run` the keys to delete."""
    present = list(committer.store.scan())
    # The listing comes first. Read the other way round, a checkpoint committed by another process between the two would
    # be listed, not named, and taken for an orphan.
    manifest = committer.load()
    if not manifest.series:
        log.warning("%s has no manifest that names anything: its objects are left alone.", committer.location.name)
        return []
    limit = datetime.now(timezone.utc) - older_than

    def is_old(found: ObjectInfo) -> bool:
        return found.modified is not None and found.modified < limit

    unnamed = _unnamed(committer, manifest, present)
    orphans = [found.key for found in present if found.key in unnamed and is_old(found)]
    deleter = Deleter(committer, manifest)
    # `is_old` is asked again at each deletion: the key may be a new object's by then.
    return [key for key in orphans if dry_run or deleter.delete(key, is_old)]


def _unnamed(committer: Committer, manifest: Manifest, present: Iterable[ObjectInfo]) -> set[str]:
    """Return the keys of orphans: present, made by this package, and named by neither manifest nor segment.

    Made by this package is an object in the hidden folder (the spool of a local run excepted), or one whose key is in
    the history of a series.
    """
    named = committer.archive.keys(manifest)
    once = {e.key for name, one in manifest.series.items() for e in committer.archive.whole(name, one).history}
    ours = {found.key for found in present if found.key.startswith(f"{HIDDEN}/") or found.key in once}
    return {key for key in ours - named if not key.startswith(_SPOOL)}


def sweep_uploads(committer: Committer, templates: set[str], older_than: timedelta, *, dry_run: bool) -> list[str]:
    """Abort unfinished uploads of interrupted writers; return their keys.

    Args:
        committer: Of the run.
        templates: Templates of series that the manifest may not name yet.
        older_than: Abort only uploads for which nothing has been sent for so long.
        dry_run: Only return the keys.

    Raises:
        ManifestError: The manifest cannot be read.
        StoreError: The store refused. A store that cannot list unfinished uploads is logged instead.
    """
    ours = _made_by(templates | committer.load().series.keys())
    try:
        return committer.store.sweep_uploads(older_than, ours=ours, dry_run=dry_run)
    except InvalidRequestError as exc:  # some servers cannot list unfinished uploads
        log.warning("Unfinished uploads in %s were not swept: %s", committer.location.name, exc)
        return []


def _made_by(names: Iterable[str]) -> Callable[[str], bool]:
    """Return a predicate: can a writer of these series have begun to upload to a key?

    Other people may keep other objects, or other runs, under the same prefix: their uploads must go on.
    """
    templates: list[NameTemplate] = []
    for name in names:
        try:
            templates.append(NameTemplate(name))
        except LocationError:  # the manifest is not trusted: a name in it may be no valid template
            continue

    def is_ours(key: str) -> bool:
        hidden = key.startswith(f"{HIDDEN}/") and not key.startswith(_SPOOL)
        return hidden or any(template.may_have_made(key) for template in templates)

    return is_ours
