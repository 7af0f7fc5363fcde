"""Load the best weights, on this machine or any other, and use them.

    python load_and_predict.py                                    # from the folder checkpoints/pima
    python load_and_predict.py s3://my-bucket/runs/pima           # from a bucket

Run one of the other examples first.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

from remote_ckpt import load_best

parser = argparse.ArgumentParser(description="Load the best weights of a run and use them.")
parser.add_argument("url", nargs="?", default="checkpoints/pima", help="a run: s3://…, gs://…, or a folder")
arguments = parser.parse_args()

data = np.loadtxt(Path(__file__).with_name("data") / "pima-indians-diabetes.csv", delimiter=",")
held_out = data[int(len(data) * (1 - 0.33)) :]  # what validation_split=0.33 kept from training
x, y = held_out[:, :8], held_out[:, 8]

model = keras.Sequential(
    [
        keras.layers.Input((8,)),
        keras.layers.Dense(12, activation="relu"),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])

checkpoint = load_best(model, arguments.url)
print(f"loaded {checkpoint.url}, saved after epoch {checkpoint.epoch + 1}")

_, accuracy = model.evaluate(x, y, verbose=0)
print(f"accuracy: {accuracy:.2%} (when it was saved: {checkpoint.score:.2%})")

for probability, diagnosis in zip(model.predict(x[:5], verbose=0)[:, 0], y[:5], strict=True):
    print(f"predicted {probability:.2f}, diagnosed {diagnosis:.0f}")
