"""Go on where training stopped: model, optimizer, epoch, and the state of the riders."""

from __future__ import annotations

import logging
from typing import Any, Literal

from remote_ckpt.callback.riders import Riders
from remote_ckpt.callback.team import Team
from remote_ckpt.checkpoint import Checkpoint
from remote_ckpt.errors import NoCheckpointError, RemoteCkptError
from remote_ckpt.restore import put_back
from remote_ckpt.run import Run
from remote_ckpt.run.loading import Restored, restore

log = logging.getLogger("remote_ckpt")


def resume(
    run: Run, model: Any, which: Literal["latest", "best"], riders: Riders, epochs: int | None, team: Team
) -> Restored | None:
    """Restore a checkpoint before training; call it after the riders' `on_train_begin`.

    A checkpoint made inside an epoch repeats that epoch. Where `EarlyStopping` had ended training, it stays ended.

    Args:
        run: Where checkpoints are.
        model: Compiled and built.
        which: The checkpoint.
        riders: Who gets back what travelled with it.
        epochs: How many epochs `fit` was asked for, if known.
        team: Who trains this model; the first chooses, as another may look while it still uploads what was left.

    Returns:
        The checkpoint, and what did not come back; None when there is none, and training starts anew.

    Raises:
        RemoteCkptError: There may be one, and it cannot be had, or its weights do not fit the model.
    """
    try:
        restored = restore(run, model, which if team.size == 1 else _chosen(run, which, team))
    except NoCheckpointError:
        log.info("%s holds nothing to resume from; training starts anew.", run.url)
        return None
    found = restored.checkpoint
    # As Keras's BackupAndRestore does.
    model._initial_epoch = found.epoch + (1 if found.batch is None else 0)
    riders.restore(found.riders, found.url)
    for stopping in riders.wanting_weights():
        stopping.best_weights = _best_weights(run, model, found, stopping)
    if riders.have_stopped():
        log.warning(
            "EarlyStopping had ended this training after epoch %d, so no epoch is left. To train on, raise its "
            "patience, or leave it out of riders.",
            found.epoch + 1,
        )
        model._initial_epoch = max(epochs or 0, found.epoch + 1)
    return restored


def _chosen(run: Run, which: Literal["latest", "best"], team: Team) -> str:
    """Return the id of the checkpoint that the first process chose. Loading it takes all of them at the same time.

    Raises:
        NoCheckpointError: It found none.
    """
    record = getattr(run, which) if team.saves else None
    if chosen := team.agree(record.id if record else ""):
        return chosen
    raise run.nothing(which)


def _best_weights(run: Run, model: Any, found: Checkpoint, stopping: Any) -> list[Any] | None:
    """Return the weights of the epoch that `stopping` holds for the best; the model is as before in the end."""
    if found.batch is None and found.epoch == stopping.best_epoch:
        weights: list[Any] = model.get_weights()
        return weights
    problem = "the run has no checkpoint of it"
    if (best := _of_best_epoch(run, found, stopping)) is not None:
        try:
            with put_back(model):
                restore(run, model, best.id, optimizer=False)
                weights = model.get_weights()
        except RemoteCkptError as exc:
            problem = str(exc)
        else:
            return weights
    log.warning(
        "The best weights so far, of epoch %d, which EarlyStopping is to restore at the end, cannot be had: %s. "
        "If no later epoch is better, it restores those of the first epoch that is trained now.",
        stopping.best_epoch + 1,
        problem,
    )
    return None


def _of_best_epoch(run: Run, found: Checkpoint, stopping: Any) -> Checkpoint | None:
    """Return the checkpoint of the best epoch's end; a name's epochs repeat when a run is begun again."""
    fitting = (
        record
        for record in reversed(run.checkpoints)
        if record.batch is None
        and record.epoch == stopping.best_epoch
        and record.created <= found.created
        and record.logs.get(stopping.monitor) == stopping.best
    )
    return next(fitting, None)
