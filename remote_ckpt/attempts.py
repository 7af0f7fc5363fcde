"""What has been tried with one sealed checkpoint, noted beside it for whoever tries again.

::

    {"tried": ["w-01.weights.h5"],      keys under which an upload may have begun
     "made": {"key": …, …},             the object that an upload made, complete and compared, not committed yet
     "upload": {…}}                     the store's own: how to go on with an upload that broke off

Each has one meaning and one writer, so that a store which has nothing more to go on with takes nothing else away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from remote_ckpt.stores.base import Journal

_NAMES = {"tried", "made", "upload"}


class Made(BaseModel):
    """An object that one of our uploads made.

    Attributes:
        key: Under which it is.
        version: As the store returned it.
        time: When it was complete.
    """

    model_config = ConfigDict(frozen=True)

    key: str
    version: str
    time: datetime


@dataclass
class Attempts:
    """The notes about one checkpoint. They hold in this process even where the disk refuses to keep them.

    Threads: one at a time; the store's part is saved from the store's threads while its upload is waited for.
    """

    journal: Journal
    made: Made | None = None
    _state: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what an earlier process noted."""
        self._state = _sorted(self.journal.load())
        try:
            self.made = Made.model_validate(self._state.get("made"))
        except ValidationError:
            self.made = None

    @property
    def any(self) -> bool:
        """Whether an upload may have begun, here or in a process that died."""
        return bool(self._state)

    def tried(self, key: str) -> bool:
        """Return whether an upload to `key` may have begun."""
        return any(one == key or one.endswith(f"/{key}") for one in self._state.get("tried", ()))

    def begin(self, key: str) -> None:
        """Note, durably, that an upload to `key` begins."""
        if not self.tried(key):
            self._note("tried", [*self._state.get("tried", ()), key])

    def forget(self, key: str) -> None:
        """Note that what is under `key` is another writer's."""
        self._note("tried", [one for one in self._state.get("tried", ()) if one != key])

    def keep(self) -> None:
        """Note, durably, which object was made: it was not committed, and must not be sent again."""
        if self.made is not None:
            self._note("made", self.made.model_dump(mode="json"))

    @property
    def upload(self) -> Journal:
        """The store's part of the notes."""
        return _Part(self)

    def _note(self, name: str, value: Any) -> None:
        self._state[name] = value
        self.journal.save(self._state)


@dataclass(frozen=True)
class _Part:
    """The store's part, as a journal of its own."""

    attempts: Attempts

    def load(self) -> dict[str, Any]:
        """Return what the store saved last."""
        return dict(self.attempts._state.get("upload", {}))

    def save(self, state: dict[str, Any]) -> None:
        """Replace what the store saved last."""
        self.attempts._note("upload", dict(state))


def _sorted(state: dict[str, Any]) -> dict[str, Any]:
    """Return notes in their parts; version 0.1 had one field for the key, with or without the run's prefix."""
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
