"""Save from a training loop of one's own, without callbacks.

python custom_training_loop.py                                # into the folder checkpoints/pima
python custom_training_loop.py s3://my-bucket/runs/pima       # into a bucket
"""

import argparse
from pathlib import Path

import keras
import numpy as np

from remote_ckpt import Run

parser = argparse.ArgumentParser(description="Train on the Pima data in a loop of one's own.")
parser.add_argument("url", nargs="?", default="checkpoints/pima", help="a run: s3://…, gs://…, or a folder")
parser.add_argument("--epochs", type=int, default=50)
arguments = parser.parse_args()

keras.utils.set_random_seed(7)
data = np.loadtxt(Path(__file__).with_name("data") / "pima-indians-diabetes.csv", delimiter=",")
cut = int(len(data) * (1 - 0.33))
x, y, x_held_out, y_held_out = data[:cut, :8], data[:cut, 8], data[cut:, :8], data[cut:, 8]

model = keras.Sequential(
    [
        keras.layers.Input((8,)),
        keras.layers.Dense(12, activation="relu"),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])

# Leaving the block waits until everything is in the bucket.
with Run(arguments.url).writer("loop-{epoch:03d}.weights.h5", monitor="val_accuracy", save_best_only=True) as writer:
    for epoch in range(arguments.epochs):
        for batch in np.array_split(np.random.permutation(cut), cut // 10):
            model.train_on_batch(x[batch], y[batch])
        _, accuracy = model.evaluate(x_held_out, y_held_out, verbose=0)
        if writer.save(model, epoch=epoch, logs={"val_accuracy": accuracy}):
            print(f"epoch {epoch + 1}: {accuracy:.2%}, saved")
