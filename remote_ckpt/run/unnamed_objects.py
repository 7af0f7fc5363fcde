"""Find the objects left by a lost manifest: like a run's checkpoints, and never named by the run's manifest."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from remote_ckpt.location import MANIFEST_KEY, SUFFIXES, Location, NameTemplate
from remote_ckpt.manifest.segment_store import SegmentStore
from remote_ckpt.records import Manifest
from remote_ckpt.run.naming import Naming, guesses, is_guess
from remote_ckpt.stores.base import ObjectInfo, ObjectStore

MOST = 1000
"""The most objects that are looked at: one request."""


def unnamed(
    store: ObjectStore, location: Location, manifest: Manifest, *, most: int = MOST
) -> dict[str, list[ObjectInfo]]:
    """Return objects never named by the manifest, by template; sorted by their keys.

    With a template in the location: only objects whose names the template may have made, because people keep other
    files beside a run. Without a template: objects whose names have a number, by guessed templates; objects of another
    run in a folder below are left out.

    Args:
        store: The run's store.
        location: The run, perhaps with a template.
        manifest: The present manifest. Objects that it named once and pruned are left out.
        most: How many objects to look at.

    Raises:
        StoreError: The store refused.
    """
    template = None if location.template is None else NameTemplate(location.template)
    naming = None if template is None else Naming.of(template)
    if template is not None:  # objects recorded under a guessed template are returned, to be recorded under this one
        known = {name: one for name, one in manifest.series.items() if not is_guess(name) or name == template.text}
        manifest = manifest.model_copy(update={"series": known})
    found = {one.key: one for one in islice(store.scan(naming.prefix if naming else ""), most)}
    fitting = [key for key in found if key.endswith(SUFFIXES) and (naming is None or naming.matches(key))]
    if not fitting:
        return {}
    named = SegmentStore(store, location).ever_named(manifest)
    left = sorted(key for key in fitting if key not in named)
    if template is not None:
        return {template.text: [found[key] for key in left]} if left else {}
    own = [key for key in left if not _is_below_another_run(key, found)]
    return {guess: [found[key] for key in keys] for guess, keys in guesses(own).items()}


def _is_below_another_run(key: str, keys: Collection[str]) -> bool:
    folders = key.split("/")[:-1]
    return any(f"{'/'.join(folders[:depth])}/{MANIFEST_KEY}" in keys for depth in range(1, len(folders) + 1))
