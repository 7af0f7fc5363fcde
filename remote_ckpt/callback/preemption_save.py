"""Save and end training after a preemption notice. For the training thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from remote_ckpt.callback.fit_running import FitUnderWay
from remote_ckpt.preemption import PreemptionGuard
from remote_ckpt.preemption.notices import Notice
from remote_ckpt.saving.stats import Stats

log = logging.getLogger("remote_ckpt")

Logs = Mapping[str, Any]
Save = Callable[[int | None, Logs], None]
"""Saves the present model whatever `save_freq` and `save_best_only` are, ahead of all waiting checkpoints.

Takes the batch (None at an epoch's end) and the logs.
"""

RESERVE = 2.0
"""Seconds of the notice's time that uploads may not use: they are kept for ending the process."""


@dataclass
class PreemptionSave:
    """The reaction to a notice: check at the end of each batch and epoch, save, and end training.

    A notice inside an epoch is answered at the end of the batch: the checkpoint names its batch, and the rest of the
    epoch, validation included, is left out. If the batch is known to be the epoch's last, validation goes on, and if it
    ends in time the whole epoch is saved as well.

    Attributes:
        guard: Receives the notices.
        save: Saves the model.
    """

    guard: PreemptionGuard
    save: Save
    _under_way: bool = False
    _saved: bool = False
    _cut: bool = False

    @property
    def notice(self) -> Notice | None:
        """The first notice since training began, or None."""
        return self.guard.notice

    def begin(self, user: object) -> None:
        """Start listening, on behalf of `user`; call from `on_train_begin`."""
        self._under_way, self._saved, self._cut = True, False, False
        training = FitUnderWay.here()
        self.guard.start(user, training)
        training.at_end(self.guard.forget, user)  # after an exception in `fit` Keras calls no callback, so not `end`

    def end(self, user: object) -> None:
        """Stop listening, on behalf of `user`. If a signal is held back, the process may end here."""
        self._under_way = False
        self.guard.stop(user)

    def batch_ended(self, model: Any, batch: int, batches: int | None, logs: Logs) -> bool:
        """Save and end training if there is a notice; return whether there is a notice.

        After a notice the caller saves nothing else. Later calls save nothing and return True.
        """
        if not self._under_way or self.guard.notice is None:
            return False
        if not self._saved:
            self._saved = model.stop_training = True
            self._cut = batches is None or batch + 1 < batches
            self.save(batch, logs)
        return True

    def test_began(self, model: Any) -> None:
        """End validation at once if the epoch was cut short by a notice: nobody needs the result."""
        if self._under_way and self._cut:
            model.stop_evaluating = True

    def epoch_ended(self, model: Any, logs: Logs) -> bool:
        """Save and end training if there is a notice, at an epoch's end; return whether there is a notice.

        Saves nothing if the epoch was cut short: then `batch_ended` has saved already.
        """
        if self.guard.notice is None:
            return False
        if not self._cut:
            model.stop_training = True
            self.save(None, logs)
        return True

    def tell(self, what: str, stats: Stats, spool: object) -> None:
        """Log the time left, and whether the newest checkpoint may be too late for the bucket.

        The estimate goes by the last uploads: before the first one, the log holds the time alone.

        Args:
            what: What is being saved, for people.
            stats: The writer's counters.
            spool: The folder where checkpoints wait.
        """
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
        """Seconds left for uploads: the notice's time less `RESERVE`; None without a notice."""
        return None if self.guard.notice is None else _for_uploads(self.guard.notice)


def _for_uploads(notice: Notice) -> float:
    return max(0.0, notice.seconds_left - RESERVE)


def _needed(stats: Stats) -> float:
    """Return the seconds until the newest checkpoint is in the bucket, as an estimate; 0 if none was uploaded yet.

    That is the time of the slowest of the last three uploads; twice that time if several checkpoints are pending, as
    another upload may be under way and is finished first.
    """
    one = max(stats.publish_seconds[-3:], default=0.0)
    return one * (2 if stats.pending > 1 else 1)
