"""Riders in a real `fit`: what other callbacks remember travels with the checkpoints."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from models import Scores, data, fit, model

from remote_ckpt import RemoteModelCheckpoint, Run
from remote_ckpt.callback.callback_state import Riders

NAMED = "w-{epoch:02d}.weights.h5"


def checkpoint(url, *riders, **options):
    settings = {"monitor": "val_score", "mode": "max", "resume": "latest", "riders": riders}
    return RemoteModelCheckpoint(str(url / NAMED), **{**settings, **options})


def stopping(**options):
    return keras.callbacks.EarlyStopping(**{"monitor": "val_score", "mode": "max", "patience": 2, **options})


class Counter(keras.callbacks.Callback):
    """A user's own callback; forgets at `on_train_begin`, as Keras's do."""

    def on_train_begin(self, logs=None):
        self.epochs = 0

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1

    def get_state(self):
        return {"epochs": self.epochs, "curve": [float("nan"), np.float32(0.5)]}

    def set_state(self, state):
        self.epochs = state["epochs"]


class EndAfter(keras.callbacks.Callback):
    """Ends training before the epochs that `fit` was asked for are over."""

    def __init__(self, epoch):
        super().__init__()
        self.last = epoch

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == self.last


def test_early_stopping_counts_on(tmp_path):
    """Patience is not granted anew."""
    first = stopping()
    fit(model(), [Scores(0.5, 0.4), first, checkpoint(tmp_path, first)], epochs=2)
    second = stopping()
    history = fit(model(), [Scores(0.5, 0.4, 0.3, 0.2, 0.1), second, checkpoint(tmp_path, second)], epochs=5)
    assert history.epoch == [2]
    assert (second.best, second.best_epoch, second.wait, second.stopped_epoch) == (0.5, 0, 2, 2)


def test_a_training_that_was_stopped_early_stays_stopped(tmp_path):
    """As it would have without the interruption; a larger patience trains on."""
    first = stopping(patience=1)
    fit(model(), [Scores(0.5, 0.4), first, checkpoint(tmp_path, first)], epochs=5)
    second = stopping(patience=1)
    made = model()
    assert fit(made, [Scores(*[0.1] * 5), second, checkpoint(tmp_path, second)], epochs=5).epoch == []
    assert made._initial_epoch is None
    third = stopping(patience=2)
    assert fit(model(), [Scores(*[0.1] * 5), third, checkpoint(tmp_path, third)], epochs=5).epoch == [2]


def test_early_stopping_restores_the_best_weights_of_the_first_process(tmp_path):
    """They are in the bucket as the checkpoint of that epoch."""
    first, made = stopping(restore_best_weights=True, patience=5), model()
    fit(made, [Scores(0.5, 0.4), first, checkpoint(tmp_path, first)], epochs=2)
    best = first.best_weights
    second, again = stopping(restore_best_weights=True, patience=5), model(seed=2)
    resumed = checkpoint(tmp_path, second)
    fit(again, [Scores(0.5, 0.4, 0.3), second, resumed], epochs=3)
    assert resumed.resumed_from.epoch == 1
    assert all(np.array_equal(one, other) for one, other in zip(second.best_weights, best, strict=True))
    assert all(np.array_equal(one, other) for one, other in zip(again.get_weights(), best, strict=True))


def test_best_weights_that_are_gone_are_told(tmp_path, caplog):
    """The run keeps another metric's best."""
    first = stopping(restore_best_weights=True, patience=5)
    kept = {"monitor": "loss", "mode": "min", "keep_best": 1}
    fit(model(), [Scores(0.5, 0.4, 0.3), first, checkpoint(tmp_path, first, **kept)], epochs=3)
    assert [record.epoch for record in Run(str(tmp_path)).checkpoints] == [2]
    second = stopping(restore_best_weights=True, patience=5)
    fit(model(seed=2), [Scores(*[0.1] * 5), second, checkpoint(tmp_path, second, **kept)], epochs=4)
    assert "The best weights so far, of epoch 1, which EarlyStopping is to restore at the end, cannot be" in caplog.text
    assert second.best == 0.5


def test_reduce_lr_on_plateau_and_the_learning_rate_go_on(tmp_path):
    """The counters by the rider, the rate by the optimizer's state."""

    def plateau():
        return keras.callbacks.ReduceLROnPlateau("val_score", mode="max", patience=2, factor=0.5, cooldown=1)

    scores = [0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]
    whole = keras.callbacks.History()
    fit(model(), [Scores(*scores), plateau(), whole], epochs=8)
    first, second = plateau(), plateau()
    fit(model(), [Scores(*scores), first, checkpoint(tmp_path, first)], epochs=4)
    rest = fit(model(seed=2), [Scores(*scores), second, checkpoint(tmp_path, second)], epochs=8)
    assert rest.history["learning_rate"] == whole.history["learning_rate"][4:]
    assert len(set(whole.history["learning_rate"])) == 4


def test_the_history_continues(tmp_path):
    """The one that `fit` returns, and `model.history`."""
    first = keras.callbacks.History()
    fit(model(), [Scores(0.5, float("nan")), first, checkpoint(tmp_path, first)], epochs=2)
    second, made = keras.callbacks.History(), model()
    returned = fit(made, [Scores(0.5, 0.4, 0.3), second, checkpoint(tmp_path, second)], epochs=3)
    assert returned is made.history is second
    assert returned.epoch == [0, 1, 2]
    np.testing.assert_equal(returned.history["val_score"], [0.5, float("nan"), 0.3])
    assert returned.history["loss"][:2] == first.history["loss"]


def test_a_callback_of_ones_own_rides(tmp_path):
    """By `get_state` and `set_state`."""
    first, second = Counter(), Counter()
    fit(model(), [Scores(0.5, 0.4), first, checkpoint(tmp_path, first)], epochs=2)
    fit(model(), [Scores(0.5, 0.4, 0.3), second, checkpoint(tmp_path, second)], epochs=3)
    assert second.epochs == 3


def test_the_best_restores_what_was_true_then(tmp_path):
    """`resume="best"`."""
    first, second = Counter(), Counter()
    fit(model(), [Scores(0.1, 0.9, 0.2), first, checkpoint(tmp_path, first)], epochs=3)
    fit(model(), [Scores(*[0.1] * 3), second, checkpoint(tmp_path, second, resume="best")], epochs=3)
    assert second.epochs == 3


def test_averaged_weights_are_swapped_back(tmp_path):
    """The checkpoint holds the averages; training goes on with what they are averages of."""

    def averaged(seed=1):
        made = model(seed=seed)
        made.compile(keras.optimizers.Adam(use_ema=True, ema_momentum=0.5), "binary_crossentropy")
        return made, keras.callbacks.SwapEMAWeights(swap_on_epoch=True)

    x, y = data()
    whole, swap = averaged()
    whole.fit(x, y, epochs=4, shuffle=False, verbose=0, callbacks=[swap])
    for made, swap, last in [(*averaged(), 1), (*averaged(seed=2), 3)]:
        saving = checkpoint(tmp_path, swap, monitor="loss", mode="min")
        made.fit(x, y, epochs=4, shuffle=False, verbose=0, callbacks=[swap, saving, EndAfter(last)])
    pairs = zip(whole.get_weights(), made.get_weights(), strict=True)
    assert all(np.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in pairs)


def test_riders_of_one_class_have_numbers(tmp_path):
    """In the order of the argument."""
    first, second = stopping(), stopping(patience=3)
    saving = checkpoint(tmp_path, first, second)
    fit(model(), [Scores(0.5), first, second, saving], epochs=1)
    assert list(Run(str(tmp_path)).latest.riders) == ["EarlyStopping", "EarlyStopping-2"]


def test_a_class_that_is_not_known_is_refused(tmp_path):
    """With what to do."""
    with pytest.raises(ValueError, match=r"TerminateOnNaN cannot be a rider.*get_state"):
        checkpoint(tmp_path, keras.callbacks.TerminateOnNaN())


def test_a_rider_is_listed_before_the_checkpoint(tmp_path):
    """Else the checkpoint of an epoch lacks what the rider decided at its end."""
    rider = stopping()
    with pytest.raises(ValueError, match="listed after the checkpoint"):
        fit(model(), [Scores(0.5), checkpoint(tmp_path, rider), rider], epochs=1)
    with pytest.raises(ValueError, match="not among the callbacks"):
        fit(model(), [Scores(0.5), checkpoint(tmp_path, stopping())], epochs=1)
    fit(model(), [Scores(0.5), rider, checkpoint(tmp_path, rider)], epochs=1)


def test_state_that_cannot_travel_is_told_before_training(tmp_path):
    """Not after the first epoch."""

    class Heavy(Counter):
        def get_state(self):
            return {"array": np.zeros(3)}

    rider = Heavy()
    with pytest.raises(ValueError, match=r"Heavy\['array'\] is a ndarray"):
        fit(model(), [rider, checkpoint(tmp_path, rider)], epochs=1)


def test_state_that_grows_too_large_costs_no_checkpoint(tmp_path, caplog):
    """It is told once, and the models are saved."""

    class Growing(Counter):
        def get_state(self):
            return {"text": "x" * (self.epochs * (1 << 21))}

    rider = Growing()
    fit(model(), [Scores(0.5, 0.4, 0.3), rider, checkpoint(tmp_path, rider)], epochs=3)
    assert len(Run(str(tmp_path)).checkpoints) == 3
    assert caplog.text.count("without the state of the riders from now on") == 1


@pytest.mark.parametrize("state", [{"wait": "many"}, {"wait": True}, {}, {"wait": 1, "best": {"a": 1}}, []])
def test_hostile_state_is_told_and_changes_nothing(state, caplog):
    """The manifest comes from a bucket that anybody may have written to."""
    rider = stopping()
    before = dict(vars(rider))
    Riders([rider]).restore({"EarlyStopping": state}, "s3://bucket/run/w.weights.h5")
    assert "EarlyStopping begins anew: its state in s3://bucket/run/w.weights.h5 cannot be used" in caplog.text
    assert vars(rider) == before


@pytest.mark.parametrize("changed", [{"monitor": "val_loss"}, {"mode": "min"}])
@pytest.mark.parametrize("kind", [keras.callbacks.EarlyStopping, keras.callbacks.ReduceLROnPlateau])
def test_a_rider_that_watches_another_metric_now_begins_anew(kind, changed, caplog):
    """A best accuracy of 0.5 is no loss to beat."""
    before = kind(monitor="val_score", mode="max")
    before.on_train_begin()
    before.best, before.wait = 0.5, 1
    after = kind(**{"monitor": "val_score", "mode": "max", **changed})
    Riders([after]).restore(Riders([before]).states(), "s3://bucket/run/w.weights.h5")
    assert after.best != 0.5
    assert "begins anew" in caplog.text


def test_a_rider_that_was_not_aboard_begins_anew_and_says_so(tmp_path, caplog):
    """Because it is new, or because the checkpoint is neither the best nor the latest."""
    fit(model(), [Scores(0.5), checkpoint(tmp_path)], epochs=1)
    rider = stopping()
    fit(model(), [Scores(0.5, 0.4), rider, checkpoint(tmp_path, rider)], epochs=2)
    assert "EarlyStopping begins anew: its state did not travel with" in caplog.text
