"""A training that a machine may be taken away from: `python spot_programs.py URL LAST WHERE [METADATA DECISION]`.

Trains 12 epochs with everything that remembers, and prints what a user would look at. The notice comes in epoch LAST
(0-based; -1 for none), at its end (`epoch`) or after its second batch (`batch`): a SIGTERM, or what the metadata server
decides.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import keras
import numpy as np
from metadata_server import decide
from models import data, model
from waiting import until

from remote_ckpt import PreemptionGuard, RemoteModelCheckpoint

EPOCHS = 12


class Sooner(keras.callbacks.Callback):
    """Brings the notice, and waits until it is heard, so that a test knows where it came."""

    def __init__(self, guard, last, where, metadata, decision):
        super().__init__()
        self.guard, self.last, self.where, self.metadata, self.decision = guard, last, where, metadata, decision
        self.epoch = None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, self.where, batch) == (self.last, "batch", 1):
            self.bring()

    def on_epoch_end(self, epoch, logs=None):
        if (epoch, self.where) == (self.last, "epoch"):
            self.bring()

    def bring(self):
        if self.decision:
            decide(self.metadata, self.decision)
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: self.guard.notice, "nobody heard of it")


def train(url, last, where, metadata=None, decision=None):
    guard = PreemptionGuard(ec2=metadata or False, gce=metadata or False, poll=0.05)
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=5, restore_best_weights=True)
    plateau = keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, factor=0.5, min_delta=0.02)
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 1.5 if epoch == 4 else rate)
    history = keras.callbacks.History()
    riders = (schedule, stopping, plateau, history)
    checkpoint = RemoteModelCheckpoint(url, resume="latest", riders=riders, preemption=guard)
    x, y = data()
    wrong = np.random.default_rng(3).random(len(y)) < 0.25  # so that the model soon gets worse
    made = model(units=32)
    made.compile(keras.optimizers.Adam(0.03), "binary_crossentropy")
    callbacks = [Sooner(guard, last, where, metadata, decision), *riders, checkpoint]
    returned = made.fit(
        x,
        np.where(wrong, 1 - y, y),
        validation_split=0.25,
        epochs=EPOCHS,
        batch_size=8,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )
    facts = {
        "epochs": returned.epoch,
        "history": returned.history,
        "stopping": [stopping.wait, stopping.best, stopping.best_epoch, stopping.stopped_epoch],
        "weights": [weight.tolist() for weight in made.get_weights()],
        "preempted": checkpoint.preempted and checkpoint.preempted.source,
        "resumed": checkpoint.resumed_from and [checkpoint.resumed_from.epoch, checkpoint.resumed_from.batch],
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
