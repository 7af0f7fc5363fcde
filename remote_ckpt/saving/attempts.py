"""The journal of a sealed checkpoint: the uploads begun, for the process of the next attempt.

::

    {"tried": ["w-01.weights.h5"],      keys under which an upload may have begun
     "made": {"key": …, …},             the object that an upload made: complete, verified, not committed yet
     "upload": {…}}                     the store's part: how to resume an interrupted upload

Each part has one meaning and is written by one side: the first two by `Publisher`, the last by the store. So a store
that clears its own part leaves the others as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from remote_ckpt.stores.base import Journal

_NAMES = {"tried", "made", "upload"}


class Made(BaseModel):
    """An object made by an upload of this package.

    Attributes:
        key: The object's key, relative to the run.
        version: The version that the store returned.
        time: When the upload had ended, by this machine's clock.
    """

    model_config = ConfigDict(frozen=True)

    key: str
    version: str
    time: datetime


@dataclass
class Attempts:
    """A checkpoint's journal in three parts. Stays valid in this process even if the disk refuses a save.

    Threads: one at a time. The store saves its part from its own threads, while the publisher waits for the upload.
    """

    journal: Journal
    made: Made | None = None
    _state: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read the journal of an earlier process."""
        self._state = _sorted(self.journal.load())
        try:
            self.made = Made.model_validate(self._state.get("made"))
        except ValidationError:  # absent, or of an unknown form: then the bytes are sent again
            self.made = None

    @property
    def any(self) -> bool:
        """Whether an upload may have begun, here or in a dead process."""
        return bool(self._state)

    def tried(self, key: str) -> bool:
        """Return whether an upload to `key` may have begun."""
        return any(one == key or one.endswith(f"/{key}") for one in self._state.get("tried", ()))

    def begin(self, key: str) -> None:
        """Record durably, before the first request, an upload to `key`."""
        if not self.tried(key):
            self._note("tried", [*self._state.get("tried", ()), key])

    def forget(self, key: str) -> None:
        """Remove `key` from the keys tried: the object there belongs to another writer."""
        self._note("tried", [one for one in self._state.get("tried", ()) if one != key])

    def keep(self) -> None:
        """Record durably the object made but not committed, so that no bytes are sent again."""
        if self.made is not None:
            self._note("made", self.made.model_dump(mode="json"))

    @property
    def upload(self) -> Journal:
        """The store's part of the journal."""
        return _Part(self)

    def _note(self, name: str, value: Any) -> None:
        self._state[name] = value
        self.journal.save(self._state)


@dataclass(frozen=True)
class _Part:
    """The store's part, as a separate journal."""

    attempts: Attempts

    def load(self) -> dict[str, Any]:
        """Return the state last saved by the store; empty at first."""
        return dict(self.attempts._state.get("upload", {}))

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state last saved by the store, durably."""
        self.attempts._note("upload", dict(state))


def _sorted(state: dict[str, Any]) -> dict[str, Any]:
    """Return a journal in three parts, also from the form of version 0.1.

    Version 0.1 had no parts: the store's state was the whole journal, with the key, with or without the run's prefix.
    """
    if not state:
        return {}
    if not _NAMES & state.keys():
        return {"tried": [str(state.get("key", ""))], "upload": state}
    tried, upload = state.get("tried"), state.get("upload")
    return {
        **state,
        "tried": [str(key) for key in tried] if isinstance(tried, list) else [],
        "upload": upload if isinstance(upload, dict) else {},
    }
