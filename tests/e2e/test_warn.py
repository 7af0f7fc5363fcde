"""With `on_error="warn"` nothing that goes wrong in saving ends training, and nothing fails in silence."""

from __future__ import annotations

import json

import keras
import pytest
from models import Scores, fit, model

from remote_ckpt import PreemptionGuard, RemoteModelCheckpoint, Run
from remote_ckpt.callback.tensorboard import StatsBoard
from remote_ckpt.capture import Capturer
from remote_ckpt.errors import LocationError, TemplateError
from remote_ckpt.saving.spool import Spool

EACH = "w-{epoch:02d}.weights.h5"
NAMED = "w-{epoch:02d}-{val_score:.2f}.weights.h5"


def checkpoint(url, **options):
    return RemoteModelCheckpoint(str(url), **{"monitor": "val_score", "mode": "max", **options})


class Sometimes(Scores):
    """Puts in the scores that are not None."""

    def on_epoch_end(self, epoch, logs=None):
        if self.scores[epoch] is not None:
            super().on_epoch_end(epoch, logs)


def test_a_metric_missing_in_a_later_epoch_does_not_end_training(tmp_path, caplog):
    """The name of that epoch's checkpoint cannot be made, which is logged; the others are saved."""
    history = fit(model(), [Sometimes(0.1, None, 0.3), checkpoint(tmp_path / NAMED)])
    assert len(history.epoch) == 3
    assert [record.epoch for record in Run(tmp_path).checkpoints] == [0, 2]
    assert "The model of epoch 2 could not be saved. Training goes on." in caplog.text


def test_a_metric_missing_in_the_first_epoch_after_a_resume_does_not_end_training(tmp_path, caplog):
    """That the name can be made was seen before."""
    fit(model(), [Scores(0.1), checkpoint(tmp_path / NAMED)], epochs=1)
    callback = checkpoint(tmp_path / NAMED, resume="latest")
    history = fit(model(), [Sometimes(0.1, None, 0.3), callback])
    assert history.epoch == [1, 2]
    assert "The model of epoch 2 could not be saved. Training goes on." in caplog.text


def test_a_metric_missing_in_a_later_epoch_ends_training_where_failures_do(tmp_path):
    """As asked for."""
    with pytest.raises(TemplateError):
        fit(model(), [Sometimes(0.1, None, 0.3), checkpoint(tmp_path / NAMED, on_error="raise")])


def test_a_metric_missing_in_a_later_epoch_does_not_end_a_custom_loop(tmp_path, caplog):
    """`save` returns that nothing was queued."""
    made = model()
    with Run(tmp_path).writer(NAMED, monitor="val_score", mode="max") as writer:
        saved = [writer.save(made, epoch=i, logs=logs) for i, logs in enumerate(({"val_score": 0.5}, {}))]
    assert saved == [True, False]
    assert "The model of epoch 2 could not be saved" in caplog.text


@pytest.mark.filterwarnings("ignore:Can save best model only")
@pytest.mark.parametrize("best_only", [True, False])
@pytest.mark.parametrize(
    "value", [10**400, 10**5000, "text", object(), [1.0]], ids=["400", "5000", "text", "object", "list"]
)
def test_a_metric_that_is_no_number_does_not_end_training(tmp_path, value, best_only):
    """The model is saved, without a score."""
    callback = checkpoint(tmp_path / EACH, save_best_only=best_only)
    history = fit(model(), [Scores(0.5, value), callback], epochs=2)
    assert len(history.epoch) == 2
    assert {record.epoch: record.score for record in Run(tmp_path).checkpoints} == {0: 0.5, 1: None}


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999-12:00"])
def test_a_record_of_the_year_9999_does_not_end_training(tmp_path, moment):
    """No later instant can be written down; what is committed later is the latest all the same."""
    fit(model(), [Scores(0.1), checkpoint(tmp_path / EACH)], epochs=1)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    (series,) = manifest["series"].values()
    series["checkpoints"][0]["created"] = series["history"][0]["created"] = moment
    path.write_text(json.dumps(manifest))
    history = fit(model(), [Scores(0.2, 0.3, 0.4), checkpoint(tmp_path / EACH)], epochs=3)
    assert len(history.epoch) == 3
    run = Run(tmp_path)
    assert len(run.checkpoints) == 4
    if moment.endswith("Z"):
        assert run.latest.score == 0.4


def test_a_rider_that_raises_does_not_end_training(tmp_path, caplog):
    """The model is saved without its state."""

    class Rider:
        calls = 0

        def get_state(self):
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("no state today")
            return {}

        def set_state(self, state):
            pass

    fit(model(), [Scores(0.1, 0.2, 0.3), checkpoint(tmp_path / EACH, riders=[Rider()])])
    assert len(Run(tmp_path).checkpoints) == 3
    assert "no state today" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, ValueError, OverflowError])
def test_a_capture_that_fails_does_not_end_training(tmp_path, monkeypatch, caplog, error):
    """Of whatever class the error is; the next one is saved."""
    real, calls = Capturer.capture, []

    def capture(self):
        calls.append(1)
        if len(calls) == 2:
            raise error("out of luck")
        return real(self)

    monkeypatch.setattr(Capturer, "capture", capture)
    fit(model(), [Scores(0.1, 0.2, 0.3), checkpoint(tmp_path / EACH)])
    assert [record.epoch for record in Run(tmp_path).checkpoints] == [0, 2]
    assert "out of luck" in caplog.text


def test_a_spool_that_cannot_be_looked_at_does_not_end_training(tmp_path, monkeypatch, caplog):
    """Whatever the error."""
    monkeypatch.setattr(Spool, "adopt", lambda self: (_ for _ in ()).throw(RuntimeError("strange disk")))
    fit(model(), [Scores(0.1), checkpoint(tmp_path / EACH)], epochs=1)
    assert "strange disk" in caplog.text
    assert len(Run(tmp_path).checkpoints) == 1


def test_curves_that_cannot_be_written_do_not_end_training(tmp_path, monkeypatch, caplog):
    """They are given up, and that is logged once."""
    monkeypatch.setattr(StatsBoard, "write", lambda *args: (_ for _ in ()).throw(RuntimeError("no board")))
    history = fit(model(), [Scores(0.1, 0.2, 0.3), checkpoint(tmp_path / EACH, tensorboard=tmp_path / "logs")])
    assert len(history.epoch) == 3
    assert caplog.text.count("no board") >= 1
    assert sum("TensorBoard gets no more curves" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("name", ["w" * 250 + "-{epoch}.weights.h5", "w" * 250 + ".weights.h5", "w-{epoch:zz}.keras"])
def test_a_name_that_cannot_be_stored_is_refused_when_the_callback_is_made(tmp_path, name):
    """Not by each upload, for ever."""
    with pytest.raises(LocationError):
        checkpoint(tmp_path / name)
    with pytest.raises(LocationError):
        Run(tmp_path).writer(name, monitor="val_score", mode="max")


def test_a_name_that_an_urgent_save_could_not_get_is_refused_when_the_callback_is_made(tmp_path):
    """The guard is what makes saves urgent."""
    with pytest.raises(LocationError, match="step"):
        checkpoint(tmp_path / "w-{step:06d}.weights.h5", preemption=PreemptionGuard())
    checkpoint(tmp_path / "w-{step:06d}.weights.h5")


def test_a_name_that_gets_too_long_is_not_saved_and_holds_up_none(tmp_path, caplog):
    """It is logged, and never reaches the spool."""
    name = "w-{epoch}-{note}.weights.h5"

    class Note(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["note"] = "n" * (300 if epoch == 1 else 3)

    fit(model(), [Note(), Scores(0.1, 0.2, 0.3), checkpoint(tmp_path / name)])
    assert [record.epoch for record in Run(tmp_path).checkpoints] == [0, 2]
    assert "too long a name" in caplog.text


@pytest.mark.parametrize("threshold", [10**400, "low"])
def test_a_threshold_that_is_no_number_is_refused_before_training(tmp_path, threshold):
    """It could only fail at each save."""
    with pytest.raises(ValueError, match="threshold is a number"):
        fit(model(), [Scores(0.1), checkpoint(tmp_path / EACH, initial_value_threshold=threshold)], epochs=1)
