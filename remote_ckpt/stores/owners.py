"""Whose an object is: a name that travels with it, beside its bytes."""

from __future__ import annotations

from collections.abc import Mapping

_NAME = "remote-ckpt-owner"


def metadata_of(owner: str | None) -> dict[str, str]:
    """Return the metadata that an upload of `owner` gives to its object."""
    return {} if owner is None else {_NAME: owner}


def owner_in(metadata: Mapping[str, str] | None) -> str | None:
    """Return the owner that an object's metadata names; some servers change the letters' case."""
    return next((value for name, value in (metadata or {}).items() if name.lower() == _NAME), None)
