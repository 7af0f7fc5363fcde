"""What keeps a run tidy: deleting what a rule does not keep, and what interrupted writers left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone

from remote_ckpt.checkpoint import Checkpoint, Manifest
from remote_ckpt.commit import Committer
from remote_ckpt.deletion import Deleter, object_of
from remote_ckpt.errors import InvalidRequestError, LocationError
from remote_ckpt.location import HIDDEN, Template
from remote_ckpt.stores.base import ObjectInfo

log = logging.getLogger("remote_ckpt")

ORPHAN_AGE = timedelta(days=1)
"""An object younger than this may belong to a commit that is still under way."""

_SPOOL = f"{HIDDEN}/spool/"


def delete_pruned(committer: Committer, manifest: Manifest, gone: Iterable[Checkpoint]) -> None:
    """Delete the objects of records that `manifest` no longer has; one that is named again meanwhile stays."""
    deleter = Deleter(committer, manifest)
    for checkpoint in gone:
        deleter.delete(checkpoint.key, object_of(checkpoint))


def sweep_orphans(committer: Committer, older_than: timedelta, *, dry_run: bool) -> list[str]:
    """Delete what nothing names any more; see `Run.sweep`. Return the keys that were deleted, or would be."""
    present = list(committer.store.scan())
    manifest = committer.load()  # after looking, or what is committed meanwhile would pass for an orphan
    if not manifest.series:
        log.warning("%s has no manifest that names anything: its objects are left alone.", committer.location.name)
        return []
    limit = datetime.now(timezone.utc) - older_than

    def is_old(found: ObjectInfo) -> bool:
        return found.modified is not None and found.modified < limit

    unnamed = _unnamed(committer, manifest, present)
    orphans = [found.key for found in present if found.key in unnamed and is_old(found)]
    deleter = Deleter(committer, manifest)
    return [key for key in orphans if dry_run or deleter.delete(key, is_old)]  # its name may be a new object's by now


def _unnamed(committer: Committer, manifest: Manifest, present: Iterable[ObjectInfo]) -> set[str]:
    """Return the keys, among those present, that are ours and that nothing names."""
    named = committer.archive.keys(manifest)
    once = {e.key for name, one in manifest.series.items() for e in committer.archive.whole(name, one).history}
    ours = {found.key for found in present if found.key.startswith(f"{HIDDEN}/") or found.key in once}
    return {key for key in ours - named if not key.startswith(_SPOOL)}


def sweep_uploads(committer: Committer, templates: set[str], older_than: timedelta, *, dry_run: bool) -> list[str]:
    """Abort what interrupted writers have begun to upload; return the keys.

    Args:
        committer: Of the run.
        templates: Of series that the manifest may not name yet.
        older_than: Only those of which nothing has been sent for so long.
        dry_run: Only return the keys.
    """
    ours = _made_by(templates | committer.load().series.keys())
    try:
        return committer.store.sweep_uploads(older_than, ours=ours, dry_run=dry_run)
    except InvalidRequestError as exc:  # some servers do not list them
        log.warning("Unfinished uploads in %s were not swept: %s", committer.location.name, exc)
        return []


def _made_by(names: Iterable[str]) -> Callable[[str], bool]:
    """Return a test of whether a writer of one of these series can have begun to upload to a key.

    Others may keep their own things, or other runs, under the same prefix.
    """
    templates: list[Template] = []
    for name in names:
        try:
            templates.append(Template(name))
        except LocationError:  # the manifest is not trusted
            continue

    def is_ours(key: str) -> bool:
        hidden = key.startswith(f"{HIDDEN}/") and not key.startswith(_SPOOL)
        return hidden or any(template.may_have_made(key) for template in templates)

    return is_ours
