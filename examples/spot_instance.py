"""Train on a machine that may be taken away, and go on with another one.

    python spot_instance.py                                       # into the folder checkpoints/pima
    python spot_instance.py s3://my-bucket/runs/pima              # into a bucket

Take the machine away yourself: `kill` the process from another terminal. It saves what it has, and dies. Start the
same command again, there or elsewhere: it goes on, and its curves go on too.
"""

import argparse
import os
from pathlib import Path

import keras
import numpy as np

from remote_ckpt import PreemptionGuard, RemoteModelCheckpoint

parser = argparse.ArgumentParser(description="Train on the Pima data, on a machine that may be taken away.")
parser.add_argument("url", nargs="?", default="checkpoints/pima", help="a run: s3://…, gs://…, or a folder")
parser.add_argument("--epochs", type=int, default=300)
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

# These remember things between epochs. As riders, what they remember travels with each checkpoint.
early_stopping = keras.callbacks.EarlyStopping("val_loss", patience=60, restore_best_weights=True)
reduce_lr = keras.callbacks.ReduceLROnPlateau("val_loss", patience=20, factor=0.5)
history = keras.callbacks.History()

checkpoint = RemoteModelCheckpoint(
    f"{arguments.url}/spot-{{epoch:03d}}.weights.h5",
    monitor="val_accuracy",
    mode="max",
    resume="latest",  # where the last machine stopped, if there was one
    riders=[early_stopping, reduce_lr, history],
    preemption=PreemptionGuard(),  # hears of SIGTERM, and of EC2's and Compute Engine's notices
)
print(f"training as process {os.getpid()}", flush=True)
model.fit(
    x,
    y,
    validation_split=0.33,
    epochs=arguments.epochs,
    batch_size=10,
    verbose=0,
    callbacks=[early_stopping, reduce_lr, history, checkpoint],  # riders before the checkpoint
)

if checkpoint.resumed_from:
    print(f"resumed from {checkpoint.resumed_from.url}, saved in epoch {checkpoint.resumed_from.epoch + 1}")
if checkpoint.preempted:
    raise SystemExit(f"ended by {checkpoint.preempted.source}: start me again")
print(
    f"{len(history.epoch)} epochs, from {history.history['val_loss'][0]:.3f} to {min(history.history['val_loss']):.3f}"
)
