"""Resume a training: model, optimizer, epoch, and the state of the riders."""

from __future__ import annotations

import logging
from typing import Any, Literal

from remote_ckpt.callback.callback_state import Riders
from remote_ckpt.callback.process_group import ProcessGroup
from remote_ckpt.errors import ManifestError, NoCheckpointError, RemoteCkptError
from remote_ckpt.records import Checkpoint
from remote_ckpt.restore import put_back
from remote_ckpt.run import Run
from remote_ckpt.run.loading import Restored, restore

log = logging.getLogger("remote_ckpt")


def resume(
    run: Run, model: Any, which: Literal["latest", "best"], riders: Riders, epochs: int | None, team: ProcessGroup
) -> Restored | None:
    """Restore a checkpoint before training.

    Call this function after the riders' `on_train_begin`. After a checkpoint made inside an epoch, that epoch is
    repeated. If `EarlyStopping` had ended the training, no epoch is left to train.

    Args:
        run: The run that holds the checkpoints.
        model: Compiled and built.
        which: The checkpoint to restore.
        riders: Get the state that travelled with the checkpoint.
        epochs: The `epochs` given to `fit`, if known.
        team: The processes that train this model. The first chooses the checkpoint: another process might read the run
            while the first still uploads what an earlier process left.

    Returns:
        The checkpoint, and what was not restored; None if there is no checkpoint, and training starts anew.

    Raises:
        ManifestError: The run has no checkpoint, but objects that its template has named: its manifest was lost.
        NoCheckpointError: The best was asked for, and no checkpoint of the run has a score.
        RemoteCkptError: The checkpoint cannot be read, or its weights do not fit the model.
    """
    try:
        restored = restore(run, model, which if team.size == 1 else _chosen(run, which, team))
    except NoCheckpointError as exc:
        if run.latest is not None:
            raise  # there are checkpoints, only not this one: to start anew would ignore them
        if run.unnamed():  # no record and yet objects: the manifest was lost, and a new one would leave them out
            raise ManifestError(f"Not resumed, and not begun anew either. {exc} Or train in another folder.") from exc
        log.info("%s holds nothing to resume from; training starts anew.", run.url)
        return None
    found = restored.checkpoint
    # As Keras's BackupAndRestore does: `fit` reads this attribute after `on_train_begin`.
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


def _chosen(run: Run, which: Literal["latest", "best"], team: ProcessGroup) -> str:
    """Return the id of the checkpoint chosen by the first process.

    All processes must call this function, and must then load the checkpoint together: loading is a collective call.

    Raises:
        NoCheckpointError: The first process found no checkpoint.
    """
    record = getattr(run, which) if team.saves else None
    if chosen := team.agree(record.id if record else ""):
        return chosen
    raise run.nothing(which)


def _best_weights(run: Run, model: Any, found: Checkpoint, stopping: Any) -> list[Any] | None:
    """Return the weights of `stopping`'s best epoch; the weights of the model are put back.

    None, with a warning in the log, if the run has no such checkpoint or it cannot be loaded.
    """
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
    """Return the checkpoint made at the end of `stopping`'s best epoch, or None.

    The epoch alone does not identify the checkpoint: a run that is begun again has the same epochs twice. So the
    checkpoint must also be no later than the resumed one, and have the best metric in its logs.
    """
    fitting = (
        record
        for record in reversed(run.checkpoints)
        if record.batch is None
        and record.epoch == stopping.best_epoch
        and record.created <= found.created
        and record.logs.get(stopping.monitor) == stopping.best
    )
    return next(fitting, None)
