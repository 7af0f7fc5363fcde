"""Save the weights each time the validation accuracy improves: one object for each improvement.

    python save_improvements.py                                   # into the folder checkpoints/pima
    python save_improvements.py s3://my-bucket/runs/pima          # into a bucket

The model is the Keras checkpoint tutorial's. What differs from it is one import and one path.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

from remote_ckpt import RemoteModelCheckpoint

parser = argparse.ArgumentParser(description="Train on the Pima data and save each improvement.")
parser.add_argument("url", nargs="?", default="checkpoints/pima", help="a run: s3://…, gs://…, or a folder")
parser.add_argument("--epochs", type=int, default=150)
arguments = parser.parse_args()

keras.utils.set_random_seed(7)
data = np.loadtxt(Path(__file__).with_name("data") / "pima-indians-diabetes.csv", delimiter=",")
x, y = data[:, :8], data[:, 8]

model = keras.Sequential(
    [
        keras.layers.Input((8,)),
        keras.layers.Dense(12, activation="relu"),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])

# The name is formatted as Keras does it: with the epoch, and with whatever is in the logs.
filepath = f"{arguments.url}/weights-improvement-{{epoch:02d}}-{{val_accuracy:.2f}}.weights.h5"
checkpoint = RemoteModelCheckpoint(filepath, monitor="val_accuracy", verbose=1, save_best_only=True, mode="max")
model.fit(x, y, validation_split=0.33, epochs=arguments.epochs, batch_size=10, verbose=0, callbacks=[checkpoint])
