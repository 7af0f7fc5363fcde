"""Small Keras models and data for tests."""

from __future__ import annotations

import keras
import numpy as np


def data(rows: int = 64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 4)).astype("float32")
    return x, (x.sum(axis=1) > 0).astype("float32")


def model(units: int = 8, seed: int = 1):
    keras.utils.set_random_seed(seed)
    made = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(units, activation="relu"), keras.layers.Dense(1, activation="sigmoid")]
    )
    made.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return made


def fit(made, callbacks, epochs: int = 3, **options):
    x, y = data()
    settings = {"validation_split": 0.25, "epochs": epochs, "batch_size": 16, "verbose": 0}
    return made.fit(x, y, callbacks=callbacks, **{**settings, **options})


class Scores(keras.callbacks.Callback):
    """Puts given scores into the logs, so that a test decides what is better. List it before the checkpoint."""

    def __init__(self, *scores, name="val_score"):
        super().__init__()
        self.scores, self.name = scores, name

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.scores[epoch]
