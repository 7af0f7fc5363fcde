"""The processes that train one model together, of which the first saves it."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np


@dataclass(frozen=True)
class Team:
    """One process's place among those that run the same `fit`.

    Attributes:
        index: Of this process, from 0.
        size: How many there are.
    """

    index: int = 0
    size: int = 1

    @property
    def saves(self) -> bool:
        """Whether this process is the one that saves: all hold the same weights."""
        return self.index == 0

    def agree(self, text: str) -> str:
        """Return the first process's ASCII text in each of them. All must call it, and it waits for all."""
        if self.size == 1:
            return text
        from jax.experimental import multihost_utils

        data = np.frombuffer(text.encode("ascii"), np.uint8)
        length = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
        padded = np.resize(data, length) if len(data) else np.zeros(length, np.uint8)
        return bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8)).decode("ascii")


def team() -> Team:
    """Return this process's place, once Keras and its distribution are set up.

    Keras fits one model in several processes on JAX alone: after `keras.distribution.initialize`, or JAX's own, and
    `set_distribution`. (With TensorFlow's MultiWorkerMirroredStrategy the `fit` of Keras 3 fails.) Processes that train
    models of their own are no team, and each saves.
    """
    if keras.backend.backend() != "jax" or keras.distribution.distribution() is None:
        return Team()
    import jax

    return Team(jax.process_index(), jax.process_count())
