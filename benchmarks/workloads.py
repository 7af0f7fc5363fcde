"""The models that are trained, with random weights and data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

Made = tuple[keras.Model, np.ndarray, np.ndarray]


def dense(count: int, width: int) -> Made:
    model = keras.Sequential([keras.Input((width,)), *(layers.Dense(width) for _ in range(count))])
    x = np.random.default_rng(0).random((8, width)).astype("float32")
    return model, x, x


def resnet() -> Made:
    model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10)
    rng = np.random.default_rng(0)
    return model, rng.random((2, 64, 64, 3)).astype("float32"), np.eye(10, dtype="float32")[:2]


def transformer() -> Made:
    words, length, width, blocks = 8000, 32, 384, 6
    tokens = keras.Input((length,), dtype="int32")
    x = layers.Embedding(words, width)(tokens)
    for _ in range(blocks):
        attended = layers.MultiHeadAttention(6, width // 6)(x, x)
        x = layers.LayerNormalization()(layers.add([x, attended]))
        expanded = layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(x))
        x = layers.LayerNormalization()(layers.add([x, expanded]))
    model = keras.Model(tokens, layers.Dense(width)(layers.GlobalAveragePooling1D()(x)))
    rng = np.random.default_rng(0)
    return model, rng.integers(0, words, (4, length)), rng.random((4, width)).astype("float32")


MODELS: dict[str, tuple[str, Callable[[], Made]]] = {
    "dense-12": ("12 × Dense(1440)", lambda: dense(12, 1440)),
    "dense-200": ("200 × Dense(192)", lambda: dense(200, 192)),
    "resnet50": ("ResNet50", resnet),
    "transformer": ("Transformer, 6 blocks", transformer),
}


class Workload:
    """A compiled, once trained model, and a training step."""

    def __init__(self, name: str) -> None:
        keras.utils.set_random_seed(0)
        self.model, self.x, self.y = MODELS[name][1]()
        self.model.compile(keras.optimizers.Adam(1e-5), "mse", jit_compile=False)
        self.step()

    def step(self) -> None:
        """Train on one batch."""
        self.model.train_on_batch(self.x, self.y)

    def variables(self) -> list[Any]:
        """Return what a checkpoint holds: weights and optimizer state."""
        return [*self.model.variables, *self.model.optimizer.variables]
