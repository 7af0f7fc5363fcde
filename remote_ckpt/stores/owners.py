"""The owner of an object: a name stored in the object's metadata, beside the bytes."""

from __future__ import annotations

from collections.abc import Mapping

_NAME = "remote-ckpt-owner"


def metadata_of(owner: str | None) -> dict[str, str]:
    """Return the metadata for an object uploaded by `owner`; empty for None."""
    return {} if owner is None else {_NAME: owner}


def owner_in(metadata: Mapping[str, str] | None) -> str | None:
    """Return the owner from an object's metadata; None if there is none."""
    # Some servers change the case of the letters in metadata names.
    return next((value for name, value in (metadata or {}).items() if name.lower() == _NAME), None)
