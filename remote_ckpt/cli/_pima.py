"""The data (split in two parts) and the model of the demonstration, for both of the two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SEED = 7
FIELD_NAME = "weights-{epoch:02d}-{val_accuracy:.2f}.weights.h5"

_CSV = "pima-indians-diabetes.csv"
_HELD_OUT = 0.33


def data_file() -> Path:
    """Return the data's file: from the wheel, or from the checkout."""
    packaged = Path(__file__).with_name("data") / _CSV
    return packaged if packaged.exists() else Path(__file__).parents[2] / "examples" / "data" / _CSV


def load_data() -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return (inputs, diagnosis) to train on, and the same held out."""
    import numpy as np

    rows = np.loadtxt(data_file(), delimiter=",", dtype="float32")
    cut = int(len(rows) * (1 - _HELD_OUT))
    return (rows[:cut, :8], rows[:cut, 8]), (rows[cut:, :8], rows[cut:, 8])


def build_model() -> Any:
    """Return the compiled model."""
    import keras

    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((8,)),
            layers.Dense(12, activation="relu"),
            layers.Dense(8, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
    return model
