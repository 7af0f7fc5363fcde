"""From the notice to the end of training: what a callback saves, and what it says. On the training thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from remote_ckpt.callback.under_way import FitUnderWay
from remote_ckpt.preemption import PreemptionGuard
from remote_ckpt.preemption.notices import Notice
from remote_ckpt.stats import Stats

log = logging.getLogger("remote_ckpt")

Logs = Mapping[str, Any]
Save = Callable[[int | None, Logs], None]
"""Saves the model as it is now, whatever the rules say, before all that waits. Takes the batch and the logs."""

RESERVE = 2.0
"""Seconds of the notice's time that are left for ending the process."""


@dataclass
class Departure:
    """Looks for a notice at the end of each batch and epoch, saves once, and ends training.

    A notice inside an epoch is answered at the end of the batch: the checkpoint names its batch, and the rest of the
    epoch, validation included, is left out. Where the batch was the epoch's last, validation goes on, and if it ends in
    time the whole epoch is saved as well.

    Attributes:
        guard: Who listens.
        save: What saves.
    """

    guard: PreemptionGuard
    save: Save
    _under_way: bool = False
    _saved: bool = False
    _cut: bool = False

    @property
    def notice(self) -> Notice | None:
        """Why training ended, or is about to."""
        return self.guard.notice

    def begin(self, user: object) -> None:
        """Listen from now on."""
        self._under_way, self._saved, self._cut = True, False, False
        training = FitUnderWay.here()
        self.guard.start(user, training)
        training.at_end(self.guard.forget, user)

    def end(self, user: object) -> None:
        """Listen no more. After a signal, this may be the end of the process."""
        self._under_way = False
        self.guard.stop(user)

    def batch_ended(self, model: Any, batch: int, batches: int | None, logs: Logs) -> bool:
        """Save and end training if there is a notice; return whether there is, and nothing else is to be saved."""
        if not self._under_way or self.guard.notice is None:
            return False
        if not self._saved:
            self._saved = model.stop_training = True
            self._cut = batches is None or batch + 1 < batches
            self.save(batch, logs)
        return True

    def test_began(self, model: Any) -> None:
        """Cut validation short where its outcome interests nobody any more."""
        if self._under_way and self._cut:
            model.stop_evaluating = True

    def epoch_ended(self, model: Any, logs: Logs) -> bool:
        """As `batch_ended`, at an epoch's end."""
        if self.guard.notice is None:
            return False
        if not self._cut:
            model.stop_training = True
            self.save(None, logs)
        return True

    def tell(self, what: str, stats: Stats, spool: object) -> None:
        """Say what is going on, and whether what was just saved will reach the bucket in time, as far as is known."""
        notice = self.guard.notice
        assert notice is not None
        needed = _needed(stats)
        text = f"{notice.source}: {notice.seconds_left:.0f} s are left. Saving {what}, and ending training."
        if needed > _for_uploads(notice):
            text += (
                f" An upload takes up to {needed:.0f} s, so it may not reach the bucket in time. It is written to "
                f"{spool} first: if that disk outlives this machine, `remote-ckpt recover` uploads it from there."
            )
        log.warning("%s", text)

    @property
    def time_for_uploads(self) -> float | None:
        """How many seconds uploads may take; None without a notice."""
        return None if self.guard.notice is None else _for_uploads(self.guard.notice)


def _for_uploads(notice: Notice) -> float:
    return max(0.0, notice.seconds_left - RESERVE)


def _needed(stats: Stats) -> float:
    """Return how long the newest upload will take, by the slowest of the last three; another may be under way."""
    one = max(stats.publish_seconds[-3:], default=0.0)
    return one * (2 if stats.pending > 1 else 1)
