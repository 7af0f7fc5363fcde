"""Whose turn it is to be uploaded: which checkpoints rest after a failure, and which are refused for good."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from remote_ckpt.spool import Entry

RETRY_AFTER = 60.0
"""Seconds after a failure until what failed is tried again by itself; a flush makes it try at once."""


@dataclass
class Turns:
    """Times from which each waiting checkpoint may be tried. Its user's lock guards it.

    Attributes:
        refusals: Why some are never tried again, by their ids.
    """

    refusals: dict[str, Exception] = field(default_factory=dict)
    _all_from: float = 0.0
    _each_from: dict[str, float] = field(default_factory=dict)

    def rest(self) -> None:
        """Let all wait: it is the run that fails."""
        self._all_from = time.monotonic() + RETRY_AFTER

    def step_aside(self, checkpoint_id: str) -> None:
        """Let one wait, and the others go past it."""
        self._each_from[checkpoint_id] = time.monotonic() + RETRY_AFTER

    def refuse(self, checkpoint_id: str, error: Exception) -> None:
        """Let the others go past one for ever."""
        self._each_from[checkpoint_id] = math.inf
        self.refusals[checkpoint_id] = error

    def forget(self, checkpoint_id: str) -> None:
        """Let go of one that waits no more."""
        self._each_from.pop(checkpoint_id, None)
        self.refusals.pop(checkpoint_id, None)

    def resume(self) -> None:
        """End the rest of all; what has stepped aside still waits for its own time."""
        self._all_from = 0.0

    def wake(self) -> None:
        """End every rest; what is refused stays so."""
        self.resume()
        self._each_from = {known: when for known, when in self._each_from.items() if when == math.inf}

    def next(self, entries: Iterable[Entry]) -> Entry | None:
        """Return the first that may be tried now."""
        now = time.monotonic()
        return next((entry for entry in entries if self._from(entry) <= now), None)

    def due_in(self, entries: Iterable[Entry]) -> float | None:
        """Return seconds until one that rests may be tried; None where only news can change anything."""
        now = time.monotonic()
        return min((when - now for entry in entries if now < (when := self._from(entry)) < math.inf), default=None)

    def _from(self, entry: Entry) -> float:
        return max(self._all_from, self._each_from.get(entry.record.id, 0.0))
