"""Load a checkpoint of a run into a model: the common part of `Run.load` and `resume=`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remote_ckpt.records import Checkpoint, Which

if TYPE_CHECKING:
    from remote_ckpt.run.run import Run


@dataclass(frozen=True)
class Restored:
    """The outcome of a load.

    Attributes:
        checkpoint: The checkpoint that was loaded.
        taken: The model's variables that have the checkpoint's values now, by their paths in Keras. Without the
            optimizers' variables.
        not_taken: The checkpoint's arrays that no variable of the model took, by their names in the file.
        missing: The model's weights for which the checkpoint has no value, by their paths; they are as they were.
        problems: One sentence for each optimizer or vocabulary that was not restored; empty where all were.
    """

    checkpoint: Checkpoint
    taken: tuple[str, ...]
    not_taken: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def restore(run: Run, model: Any, which: Which, *, strict: bool = True, optimizer: bool = True) -> Restored:
    """Load a checkpoint into a model; see `Run.load` for the arguments and the errors."""
    from remote_ckpt.restore import Source, load_into

    checkpoint, held = run.intact(which)
    place = f"epoch {checkpoint.epoch + 1} of {run.url}"
    source = Source(run.location.url(checkpoint.key), place, checkpoint.optimizers)
    with held:  # a shared lock, or another process's trimming of the cache could remove the file before h5py opens it
        taken = load_into(model, held.path, source, strict=strict, optimizer=optimizer)
    return Restored(checkpoint, tuple(taken.taken), tuple(taken.not_taken), tuple(taken.missing), tuple(taken.problems))
