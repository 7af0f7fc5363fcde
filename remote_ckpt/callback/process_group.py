"""The processes of a joint training of the same model; only the first process saves."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np


@dataclass(frozen=True)
class ProcessGroup:
    """The place of this process among the processes of the same `fit`.

    Attributes:
        index: The number of this process, from 0.
        size: The number of processes.
    """

    index: int = 0
    size: int = 1

    @property
    def saves(self) -> bool:
        """Whether this process saves: only the first does.

        The first is enough where all processes hold the same weights. Weights that are spread over several processes
        cannot be saved by one process.
        """
        return self.index == 0

    def agree(self, text: str) -> str:
        """Return the first process's ASCII text, in every process. Collective: waits for all processes."""
        if self.size == 1:
            return text
        from jax.experimental import multihost_utils

        # The length first: in a broadcast all processes must give arrays of the same shape.
        data = np.frombuffer(text.encode("ascii"), np.uint8)
        length = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
        padded = np.resize(data, length) if len(data) else np.zeros(length, np.uint8)
        return bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8)).decode("ascii")


def process_group() -> ProcessGroup:
    """Return the place of this process. Call only after Keras's distribution is set up.

    Keras fits one model in several processes on JAX alone: after `keras.distribution.initialize`, or JAX's own, and
    `set_distribution`. (With TensorFlow's MultiWorkerMirroredStrategy the `fit` of Keras 3 fails.) Processes that train
    models of their own are no team: each saves.
    """
    if keras.backend.backend() != "jax" or keras.distribution.distribution() is None:
        return ProcessGroup()
    import jax

    return ProcessGroup(jax.process_index(), jax.process_count())
