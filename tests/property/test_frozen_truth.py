"""Frozen truth: whatever the model, a snapshot's file is the one Keras would have written at the instant of capture."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

from remote_ckpt.capture import Capturer, Snapshot

WIDTH = 4
X = np.random.default_rng(0).random((8, WIDTH)).astype("float32")

LAYERS: list[Callable[[], keras.layers.Layer]] = [
    lambda: layers.Dense(WIDTH),
    lambda: layers.Dense(WIDTH, use_bias=False, dtype="mixed_bfloat16"),
    lambda: layers.Dense(WIDTH, dtype="bfloat16"),
    lambda: layers.BatchNormalization(),
    lambda: layers.LayerNormalization(),
    lambda: layers.Dropout(0.5, seed=1),
    lambda: layers.GaussianNoise(0.1, seed=2),
    lambda: layers.PReLU(),
    lambda: keras.Sequential([layers.Dense(WIDTH), layers.BatchNormalization()]),
    lambda: keras.Sequential([layers.Reshape((WIDTH, 1)), layers.LSTM(WIDTH)]),
]
OPTIMIZERS: list[Callable[[], keras.optimizers.Optimizer]] = [
    lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    lambda: keras.optimizers.SGD(0.01),
    lambda: keras.optimizers.RMSprop(0.01, momentum=0.9, use_ema=True),
    lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW(0.01)),
]


class Residual(keras.Model):
    """A subclassed model: its layers in a list, one of them used twice."""

    def __init__(self, blocks: list[keras.layers.Layer]) -> None:
        super().__init__()
        self.blocks = blocks

    def call(self, x: Any, training: bool = False) -> Any:
        for block in [*self.blocks, self.blocks[0]]:
            x = x + keras.ops.cast(block(x, training=training) if _takes_training(block) else block(x), x.dtype)
        return x


def _takes_training(layer: keras.layers.Layer) -> bool:
    return bool(layer._call_has_training_arg)


def functional(blocks: list[keras.layers.Layer]) -> keras.Model:
    """Use every layer, and the first one on two paths."""
    x = inputs = keras.Input((WIDTH,))
    for block in blocks:
        x = layers.add([block(x), blocks[0](inputs)])
    return keras.Model(inputs, x)


def sequential(blocks: list[keras.layers.Layer]) -> keras.Model:
    return keras.Sequential([keras.Input((WIDTH,)), *blocks])


MODES: dict[str, dict[str, bool]] = {
    "eager": {"run_eagerly": True, "jit_compile": False},
    "graph": {"jit_compile": False},
    "compiled": {"jit_compile": True},
}
changes: dict[str, Callable[[keras.Model], object]] = {
    "train": lambda model: model.train_on_batch(X, X),
    "fit": lambda model: model.fit(X, X, batch_size=4, verbose=0),
    "learning rate": lambda model: setattr(model.optimizer, "learning_rate", 0.001),
    "freeze": lambda model: (setattr(model.layers[-1], "trainable", False), compile_again(model)),
    "compile": lambda model: compile_again(model),
    "load": lambda model: model.set_weights([weight * 2 for weight in model.get_weights()]),
}


def compile_again(model: keras.Model) -> None:
    model.compile(keras.optimizers.Adam(0.02), "mse", run_eagerly=True)


@settings(
    max_examples=9,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    kind=st.sampled_from([sequential, functional, Residual]),
    makers=st.lists(st.sampled_from(LAYERS), min_size=1, max_size=3),
    make_optimizer=st.sampled_from(OPTIMIZERS),
    mode=st.sampled_from(sorted(MODES)),
    history=st.lists(st.sampled_from(["capture", "write", *changes]), min_size=3, max_size=6),
)
def test_a_snapshot_is_what_keras_would_have_written(
    kind: Any, makers: list[Any], make_optimizer: Any, mode: str, history: list[str]
) -> None:
    """Snapshots taken at any moments, written in any order, after any changes, hold what was there when taken."""
    model = kind([make() for make in makers])
    model.compile(make_optimizer(), "mse", **MODES[mode])
    model.train_on_batch(X, X)
    capturer = Capturer(model)
    waiting: list[tuple[Snapshot, bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        for event in ["capture", *history, "train", "capture"]:
            if event == "capture":
                waiting.append((capturer.capture(), written(model.save_weights, folder)))
            elif event == "write" and waiting:
                assert_same(*waiting.pop(), folder)
            elif event != "write":
                changes[event](model)
        changes["train"](model)
        for snapshot, expected in waiting:
            assert_same(snapshot, expected, folder)
    assert capturer.fallback_reason is None
    keras.backend.clear_session()


def written(write: Callable[[Path], object], folder: str) -> bytes:
    path = Path(folder) / "model.weights.h5"
    write(path)
    return path.read_bytes()


def assert_same(snapshot: Snapshot, expected: bytes, folder: str) -> None:
    assert written(snapshot.write, folder) == expected
