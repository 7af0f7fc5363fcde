"""A checkpoint of a run into a model: what `Run.load` and `resume=` have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remote_ckpt.checkpoint import Checkpoint, Which

if TYPE_CHECKING:
    from remote_ckpt.run.run import Run


@dataclass(frozen=True)
class Restored:
    """What a load brought back of a checkpoint.

    Attributes:
        checkpoint: The checkpoint.
        taken: The model's variables that have the checkpoint's values now, by their paths in Keras.
        not_taken: The checkpoint's arrays that no variable of the model took, by their names in the file.
        missing: The model's weights that the checkpoint has no value for; they are as they were.
        problems: Why optimizers or vocabularies did not come back, a sentence each; empty where they did.
    """

    checkpoint: Checkpoint
    taken: tuple[str, ...]
    not_taken: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def restore(run: Run, model: Any, which: Which, *, strict: bool = True, optimizer: bool = True) -> Restored:
    """Load a checkpoint into a model; see `Run.load`, which documents the arguments and the errors."""
    from remote_ckpt.restore import Source, load_into

    checkpoint, path = run.intact(which)
    place = f"epoch {checkpoint.epoch + 1} of {run.url}"
    source = Source(run.location.url(checkpoint.key), place, checkpoint.optimizers)
    taken = load_into(model, path, source, strict=strict, optimizer=optimizer)
    return Restored(checkpoint, tuple(taken.taken), tuple(taken.not_taken), tuple(taken.missing), tuple(taken.problems))
