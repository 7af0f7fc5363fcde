"""Checks before writing: a manifest is written only if `Manifest.parse` accepts the new parts.

Only new or changed parts are parsed again; parts taken over unchanged from the store were parsed when they were read.
So the check of a commit does not parse all records of a long run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from remote_ckpt.errors import ManifestError
from remote_ckpt.location import MANIFEST_KEY, Location
from remote_ckpt.records import bounded_json
from remote_ckpt.records.records import MAX_SERIES, Checkpoint, Manifest, Series, first_problem


def recordable(facts: Mapping[str, Any], monitor: str) -> Checkpoint:
    """Return a record made of the known facts of a checkpoint, perhaps before its object is written.

    Args:
        facts: The record's fields. Placeholders stand for a size and digests that are not given.
        monitor: The metric of its series.

    Raises:
        ManifestError: No reader would accept the record; the message names the first invalid field.
    """
    try:
        Series(monitor=monitor, mode="min")
        return Checkpoint(**{"size": 0, "sha256": "0" * 64, "crc32c": "AAAAAA==", **facts})
    except ValidationError as exc:
        raise ManifestError(f"This checkpoint cannot be recorded, so it is not saved. {first_problem(exc)}") from exc


def dump_readable(manifest: Manifest, before: Manifest, location: Location) -> bytes:
    """Return a manifest's JSON after checking that every reader will accept the JSON.

    Args:
        manifest: The manifest to write.
        before: The manifest from which `manifest` was made; it was read from the store or written to the store.
        location: The run.

    Raises:
        ManifestError: No reader would accept the manifest; the message names the first invalid field.
    """
    try:
        if len(manifest.series) > MAX_SERIES:
            raise ManifestError(f"it would hold {len(manifest.series)} series, and at most {MAX_SERIES} are ever read")
        data = manifest.dump()
        bounded_json.require_bounds(data)
        Manifest.parse(_novelty(manifest, before).dump(), location)
    except (ValueError, RecursionError) as exc:
        reason = exc.__cause__ or exc
        told = first_problem(reason) if isinstance(reason, ValidationError | RecursionError) else reason
        raise ManifestError(
            f"{location.url(MANIFEST_KEY)} would not be readable any more, so it was not written: {told}"
        ) from exc
    return data


def _novelty(manifest: Manifest, before: Manifest) -> Manifest:
    """Return the manifest without the records, entries and series taken over unchanged from `before`."""
    old = {id(item) for one in before.series.values() for item in (*one.checkpoints, *one.history)}
    changed = {name: _without(old, one) for name, one in manifest.series.items() if one is not before.series.get(name)}
    return manifest.model_copy(update={"series": changed})


def _without(old: set[int], series: Series) -> Series:
    return series.model_copy(
        update={
            "best": None,
            "latest": None,
            "checkpoints": tuple(record for record in series.checkpoints if id(record) not in old),
            "history": tuple(entry for entry in series.history if id(entry) not in old),
        }
    )
