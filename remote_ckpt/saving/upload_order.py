"""The order of uploads: the next checkpoint, rests after a failure, refusals for good."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from remote_ckpt.saving.spool import SpoolEntry

RETRY_AFTER = 60.0
"""Seconds of rest after a failure, before the upload is tried again. A flush ends the rest at once."""


@dataclass
class Turns:
    """The earliest times of the next upload, by checkpoint. Has no lock: the pipeline's lock must be held.

    Attributes:
        refusals: By checkpoint id, the errors of the checkpoints that are never tried again.
    """

    refusals: dict[str, Exception] = field(default_factory=dict)
    _all_from: float = 0.0
    _each_from: dict[str, float] = field(default_factory=dict)

    def rest(self) -> None:
        """Let all checkpoints wait for `RETRY_AFTER` seconds: the run itself fails."""
        self._all_from = time.monotonic() + RETRY_AFTER

    def step_aside(self, checkpoint_id: str) -> None:
        """Let a checkpoint wait for `RETRY_AFTER` seconds, while the others go on."""
        self._each_from[checkpoint_id] = time.monotonic() + RETRY_AFTER

    def refuse(self, checkpoint_id: str, error: Exception) -> None:
        """Never try a checkpoint again, while the others go on."""
        self._each_from[checkpoint_id] = math.inf
        self.refusals[checkpoint_id] = error

    def forget(self, checkpoint_id: str) -> None:
        """Remove all entries about a checkpoint, because the checkpoint waits no more."""
        self._each_from.pop(checkpoint_id, None)
        self.refusals.pop(checkpoint_id, None)

    def resume(self) -> None:
        """End the rest of the run. After `step_aside`, a checkpoint still waits until the time set there."""
        self._all_from = 0.0

    def wake(self) -> None:
        """End every rest, of the run and of each checkpoint; refused checkpoints stay refused."""
        self.resume()
        self._each_from = {known: when for known, when in self._each_from.items() if when == math.inf}

    def next(self, entries: Iterable[SpoolEntry]) -> SpoolEntry | None:
        """Return the first entry not at rest, or None."""
        now = time.monotonic()
        return next((entry for entry in entries if self._from(entry) <= now), None)

    def due_in(self, entries: Iterable[SpoolEntry]) -> float | None:
        """Return the seconds until the first resting entry may be tried; None if no entry rests.

        With None, waiting for a time is useless: only a new entry, `wake` or `resume` can change anything.
        """
        now = time.monotonic()
        return min((when - now for entry in entries if now < (when := self._from(entry)) < math.inf), default=None)

    def _from(self, entry: SpoolEntry) -> float:
        return max(self._all_from, self._each_from.get(entry.record.id, 0.0))
