"""From the notice to the end of `fit`: what is saved, how long it may take, and what is said."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time

import keras
import pytest
from models import Scores, fit, model
from waiting import HANG, until

from remote_ckpt import PreemptionGuard, RemoteModelCheckpoint, Run
from remote_ckpt.stores.local import LocalStore


@pytest.fixture(autouse=True)
def term():
    """A signal that a test sends too late must not end the tests."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    yield
    signal.signal(signal.SIGTERM, before)


class Term(keras.callbacks.Callback):
    """Sends this process a SIGTERM at one place; counts the batches of validation."""

    def __init__(self, epoch, batch=None, test_batch=None):
        super().__init__()
        self.place, self.test_place, self.epoch, self.tested = (epoch, batch), (epoch, test_batch), None, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self._send(self.place == (self.epoch, batch))

    def on_test_batch_end(self, batch, logs=None):
        self.tested += 1
        self._send(self.test_place == (self.epoch, batch))

    def _send(self, now):
        if now:
            os.kill(os.getpid(), signal.SIGTERM)


def checkpoint(url, grace=30.0, **options):
    guard = PreemptionGuard(grace=grace, ec2=False, gce=False, reraise=False, poll=0.05)
    return RemoteModelCheckpoint(str(url), preemption=guard, **options)


def test_the_latest_is_saved_whatever_the_rules_say(tmp_path, caplog):
    """Not the best, not the epoch's end, and without the metric that is in its name."""
    name = tmp_path / "w-{epoch:02d}-{val_score:.2f}.weights.h5"
    saving = checkpoint(name, monitor="val_score", mode="max", save_best_only=True)
    history = fit(model(), [Scores(0.5, 0.4, 0.3), Term(1, batch=0), saving], epochs=3)
    assert history.epoch == [0, 1]
    assert [(record.key, record.batch) for record in Run(str(tmp_path)).checkpoints] == [
        ("w-01-0.50.weights.h5", None),
        ("w-02-nan.weights.h5", 0),
    ]
    assert saving.preempted.source == "SIGTERM"
    assert "SIGTERM: 30 s are left. Saving epoch 2, batch 1, and ending training." in caplog.text
    assert f"All that was saved is in {tmp_path}" in caplog.text


def test_validation_is_cut_short_after_a_cut_epoch(tmp_path):
    """Nobody will look at its outcome, and it takes time."""
    sending = Term(1, batch=0)
    fit(model(), [sending, checkpoint(tmp_path / "w-{epoch}.weights.h5")], validation_batch_size=4)
    assert sending.tested == 4 + 1


def test_a_notice_within_validation_saves_at_once_and_again_at_the_end(tmp_path):
    """Validation may take longer than the time that is left."""
    sending = Term(1, test_batch=1)
    fit(model(), [sending, checkpoint(tmp_path / "w-{epoch}.weights.h5")], validation_batch_size=4)
    assert sending.tested == 4 + 4
    records = Run(str(tmp_path)).checkpoints
    assert [(record.epoch, record.batch) for record in records] == [(0, None), (1, 2), (1, None)]
    assert "val_loss" in records[-1].logs


def test_saving_by_batches_saves_once(tmp_path):
    """Also where that batch was due anyway."""
    saving = checkpoint(tmp_path / "w-{epoch}-{batch}.weights.h5", save_freq=1)
    fit(model(), [Term(0, batch=1), saving])
    assert [record.batch for record in Run(str(tmp_path)).checkpoints] == [0, 1]


def test_what_does_not_fit_is_on_the_disk_and_that_is_said(tmp_path, monkeypatch, caplog):
    """`fit` ends within the notice's time."""
    real, gate, fast = LocalStore.upload, threading.Event(), [0.5, 0.5]

    def upload(self, key, *args, **options):
        gate.wait(fast.pop(0) if fast else HANG)
        return real(self, key, *args, **options)

    class Drain(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            saving.flush()

    monkeypatch.setattr(LocalStore, "upload", upload)
    saving = checkpoint(tmp_path / "run/w-{epoch}.weights.h5", grace=2.3, spool_dir=tmp_path / "spool")
    begun = time.monotonic()
    fit(model(), [Drain(), Term(2, batch=0), saving], epochs=5)
    assert time.monotonic() - begun < HANG / 2
    assert "An upload takes up to" in caplog.text
    assert str(tmp_path / "spool") in caplog.text
    assert "did not reach" in caplog.text
    until(lambda: [(entry.record.epoch, entry.record.batch) for entry in saving.run.pending()] == [(2, 0)])
    gate.set()
    saving.close()
    assert saving.run.latest.batch == 0


def test_the_next_training_begins_without_the_old_notice(tmp_path):
    """In one process: a cloud took back its decision, or the signal was meant for `fit` alone."""
    saving = checkpoint(tmp_path / "w-{epoch}.weights.h5", resume="latest")
    assert fit(model(), [Term(0, batch=0), saving], epochs=2).epoch == [0]
    assert saving.preempted
    assert fit(model(), [saving], epochs=2).epoch == [0, 1]
    assert saving.preempted is None
    assert saving.resumed_from.batch == 0


# A training that an exception ends


class Raise(keras.callbacks.Callback):
    """Ends `fit` by an exception at an epoch's end."""

    def on_epoch_end(self, epoch, logs=None):
        raise ZeroDivisionError


def fails(saving, made=None):
    """Train until an exception, and return what was raised: as long as it is there, so is the stack of `fit`."""
    with pytest.raises(ZeroDivisionError) as caught:
        fit(made or model(), [saving, Raise()])
    return caught


def test_after_a_fit_that_raised_the_handlers_are_those_from_before(tmp_path):
    """Once its stack is gone, which is where the exception is."""
    before = signal.getsignal(signal.SIGTERM)
    fails(checkpoint(tmp_path / "w-{epoch}.weights.h5"))
    gc.collect()
    assert signal.getsignal(signal.SIGTERM) is before


def test_after_a_fit_that_raised_a_signal_acts_at_once(tmp_path):
    """Also while somebody still looks at the exception, as a notebook does."""
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    saving = checkpoint(tmp_path / "w-{epoch}.weights.h5", grace=3600.0)
    caught = fails(saving)
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    assert saving.preempted is None
    assert caught.value


def test_a_fit_after_one_that_raised_listens_again(tmp_path):
    """With the same callback, while the exception is still there."""
    made = model()
    saving = checkpoint(tmp_path / "w-{epoch}.weights.h5")
    caught = fails(saving, made)
    assert fit(made, [Term(0, batch=0), saving], epochs=2).epoch == [0]
    assert saving.preempted.source == "SIGTERM"
    assert caught.value


def test_the_end_of_an_old_fit_does_not_end_the_listening_for_a_new_one(tmp_path):
    """The exception of the first is forgotten while the second trains."""
    made, kept = model(), []
    saving = checkpoint(tmp_path / "w-{epoch}.weights.h5")
    kept.append(fails(saving, made))

    def forget(epoch, logs):
        kept.clear()
        gc.collect()

    forgetting = keras.callbacks.LambdaCallback(on_epoch_begin=forget)
    assert fit(made, [forgetting, Term(0, batch=0), saving], epochs=2).epoch == [0]
