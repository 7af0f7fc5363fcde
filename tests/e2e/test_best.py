"""The best is the best: which way a metric is better, what a score is compared with, and when there is no best."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest
from models import Scores, data, fit, model
from records import checkpoint as record
from records import seal, terms
from typer.testing import CliRunner

from remote_ckpt import NoCheckpointError, RemoteModelCheckpoint, Run, load_best, load_latest
from remote_ckpt.cli._app import app
from remote_ckpt.errors import DirectionError
from remote_ckpt.location import Location
from remote_ckpt.saving.spool import Spool

EACH = "w-{epoch:02d}.weights.h5"


def mode_of(url):
    (series,) = Run(url).series.values()
    return series.mode


class Batches(keras.callbacks.Callback):
    """Counts batches."""

    seen = 0

    def on_train_batch_begin(self, batch, logs=None):
        self.seen += 1


class Own(keras.metrics.Mean):
    """A user's metric, which says itself which way it is better."""

    def __init__(self, name, direction):
        super().__init__(name=name)
        self._direction = direction

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(y_pred)


def two_outputs(metrics):
    inputs = keras.Input((4,))
    made = keras.Model(inputs, {name: keras.layers.Dense(1, name=name)(inputs) for name in ("left", "right")})
    made.compile("adam", {"left": "mse", "right": "mse"}, metrics=metrics)
    return made


@pytest.mark.parametrize(
    ("metric", "monitor", "mode"),
    [
        (Own("mine", "up"), "val_mine", "max"),
        (Own("mine", "down"), "mine", "min"),
        (Own("val_accuracy", "down"), "val_val_accuracy", "min"),
        (Own("my_loss", "up"), "val_my_loss", "max"),
        (keras.losses.mean_absolute_error, "val_mean_absolute_error", "min"),
        (keras.metrics.MeanIoU(2, name="overlap"), "val_overlap", "max"),
    ],
)
def test_a_compiled_metric_says_itself_which_way_it_is_better(tmp_path, metric, monitor, mode):
    """Before the words of its name, and before Keras has built it."""
    made = model()
    made.compile("adam", "binary_crossentropy", metrics=[metric])
    fit(made, [RemoteModelCheckpoint(str(tmp_path / EACH), monitor=monitor)], epochs=1)
    assert mode_of(tmp_path) == mode


@pytest.mark.parametrize("monitor", ["right_mine", "right_mine_1"])
def test_a_metric_of_one_of_several_outputs_is_found(tmp_path, monitor):
    """Keras puts the output's name before it, and a number after it."""
    made = two_outputs({"right": [Own("mine", "up"), Own("mine", "up")]})
    x, y = data()
    made.fit(
        x,
        {"left": y, "right": y},
        verbose=0,
        callbacks=[RemoteModelCheckpoint(str(tmp_path / EACH), monitor=monitor)],
    )
    assert mode_of(tmp_path) == "max"


@pytest.mark.parametrize("monitor", ["val_inaccuracy", "val_previous", "val_score", "inverse_accuracy"])
def test_a_metric_in_doubt_is_refused_before_the_first_batch(tmp_path, monitor):
    """Also where failures do not end training: this one would keep the worst for the best."""
    batches = Batches()
    callback = RemoteModelCheckpoint(str(tmp_path / EACH), monitor=monitor, on_error="warn")
    with pytest.raises(DirectionError, match="Pass mode="):
        fit(model(), [batches, callback], epochs=1)
    assert batches.seen == 0


@pytest.mark.parametrize("name", ["val_mcc", "val_psnr", "val_top5", "val_reward"])
def test_with_metrics_that_rise_the_last_of_three_is_the_best(tmp_path, name):
    """With .1, .5, .9 all three are improvements."""
    callback = RemoteModelCheckpoint(str(tmp_path / EACH), monitor=name, save_best_only=True)
    fit(model(), [Scores(0.1, 0.5, 0.9, name=name), callback])
    assert callback.stats.saves == 3
    assert Run(tmp_path).best.score == 0.9


def test_a_writer_and_a_push_refuse_a_metric_in_doubt(tmp_path):
    """By the same rule."""
    with pytest.raises(ValueError, match="mode="):
        Run(tmp_path).writer(EACH, monitor="val_inaccuracy")
    made = tmp_path / "mine.weights.h5"
    model().save_weights(made)
    with pytest.raises(ValueError, match="mode="):
        Run(tmp_path / "run").push(made, score=0.5, monitor="val_inaccuracy")


def test_the_score_of_another_series_is_not_the_score_to_beat(tmp_path):
    """A killed job left an accuracy in the spool; the next one saves the least loss under a fixed name."""
    spool = Spool(Location.parse(tmp_path / "run"))
    left = {"series": "{epoch}.weights.h5", "key": "1.weights.h5", "logs": {"val_accuracy": 0.1}}
    seal(spool, 0, 0.1, rules=terms(monitor="val_accuracy", mode="max"), **left)
    spool.close()
    callback = RemoteModelCheckpoint(str(tmp_path / "run/best.weights.h5"), save_best_only=True)
    fit(model(), [Scores(0.9, 0.7, 0.8, name="val_loss"), callback])
    assert callback.best == 0.7
    assert Run(tmp_path / "run/best.weights.h5").best.score == 0.7
    assert Run(tmp_path / "run/{epoch}.weights.h5").best.score == 0.1


def test_a_score_by_another_metric_is_not_the_score_to_beat(tmp_path):
    """One template whose monitor was changed: what was left is judged by its own log of the new metric."""
    spool = Spool(Location.parse(tmp_path / "run"))
    left = {"series": EACH, "logs": {"val_accuracy": 0.1, "val_loss": 0.8}}
    seal(spool, 0, 0.1, rules=terms(monitor="val_accuracy", mode="max"), **left)
    seal(spool, 1, 0.2, rules=terms(monitor="val_accuracy", mode="max"), **{**left, "logs": {"val_accuracy": 0.2}})
    spool.close()
    callback = RemoteModelCheckpoint(str(tmp_path / "run" / EACH), save_best_only=True)
    fit(model(), [Scores(0.9, 0.7, name="val_loss"), callback], epochs=2)  # 0.9 is worse than what was left
    run = Run(tmp_path / "run")
    assert (run.series[EACH].monitor, run.series[EACH].mode) == ("val_loss", "min")
    assert callback.stats.saves == 1
    assert run.find("id1").score is None
    assert run.best.score == callback.best == 0.7


@pytest.fixture(params=["never logged", "NaN"])
def unscored(tmp_path, request):
    """The URL of a run of two checkpoints without a score."""
    url = tmp_path / "run" / EACH
    scores = [Scores(math.nan, math.nan)] if request.param == "NaN" else []
    fit(model(), [*scores, RemoteModelCheckpoint(str(url), monitor="val_score", mode="max")], epochs=2)
    return tmp_path / "run"


def test_without_any_score_there_is_no_best_and_the_error_says_what_to_ask_for(unscored):
    """The latest, and each epoch, are there."""
    run = Run(unscored)
    assert run.best is None
    with pytest.raises(NoCheckpointError, match=r"no best checkpoint.*val_score was never logged.*Ask for the latest"):
        load_best(model(), str(unscored))
    assert load_latest(model(), str(unscored)).epoch == 1


@pytest.mark.parametrize("command", ["show", "pull"])
def test_commands_say_that_there_is_no_best(unscored, command):
    """With exit code 1."""
    result = CliRunner().invoke(app, [command, str(unscored), "best"])
    assert result.exit_code == 1
    assert "Ask for the latest" in " ".join(result.output.split())


def test_ls_marks_no_best_where_nothing_has_a_score(unscored):
    """It says so, and still marks the latest."""
    told = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["ls", str(unscored)]).stdout
    assert "no best, as no checkpoint has a score" in told.splitlines()[0]
    assert not any("best" in line for line in told.splitlines()[1:])
    assert "latest" in told


def test_a_leaderboard_still_lists_a_run_without_a_score(unscored):
    """It has checkpoints, and no best."""
    told = json.loads(CliRunner().invoke(app, ["ls", str(unscored.parent), "--json"]).stdout)
    assert [one["best"] for board in told["leaderboards"] for one in board["runs"]] == [None]


def test_to_resume_from_the_best_of_none_does_not_begin_anew(unscored):
    """It says what to ask for."""
    again = RemoteModelCheckpoint(str(unscored / EACH), monitor="val_score", mode="max", resume="best")
    with pytest.raises(NoCheckpointError, match="Ask for the latest"):
        fit(model(), [again], epochs=3)


def test_an_old_manifest_that_names_the_newest_for_the_best_is_read_as_none(unscored):
    """As earlier versions wrote it."""
    path = unscored / "manifest.json"
    manifest = json.loads(path.read_text())
    (series,) = manifest["series"].values()
    series["best"] = series["latest"]
    path.write_text(json.dumps(manifest))
    assert Run(unscored).best is None


def test_a_score_makes_a_best_of_a_run_without_one(unscored):
    """From then on there is one."""
    url = str(unscored / EACH)
    fit(model(), [Scores(-math.inf), RemoteModelCheckpoint(url, monitor="val_score", mode="max")], epochs=1)
    assert Run(unscored).best.score == -math.inf


@pytest.mark.filterwarnings("ignore:Can save best model only")
def test_a_fixed_name_shows_the_latest_until_there_is_a_best(tmp_path):
    """As Keras writes the file each time without the monitor; a best, once there, is never replaced by a worse."""
    url = tmp_path / "best.weights.h5"
    made = model()
    fit(made, [RemoteModelCheckpoint(str(url), monitor="val_score", mode="max", save_best_only=True)], epochs=2)
    assert Run(url).best is None
    assert url.read_bytes() == Run(url).pull("latest").read_bytes()
    callback = RemoteModelCheckpoint(str(url), monitor="val_score", mode="max", save_best_only=True)
    fit(made, [Scores(0.9, 0.1), callback], epochs=2)
    assert Run(url).best.score == 0.9
    assert url.read_bytes() == Run(url).pull("best").read_bytes()


@pytest.mark.parametrize("kind", [np.array, keras.ops.convert_to_tensor])
def test_a_metric_of_shape_1_is_a_number(tmp_path, kind):
    """NumPy 2.4 refuses to make a float of it."""
    callback = RemoteModelCheckpoint(str(tmp_path / EACH), monitor="val_score", mode="max", save_best_only=True)
    fit(model(), [Scores(kind([0.25]), kind([0.125]), kind([0.5])), callback])
    assert callback.stats.saves == 2
    assert Run(tmp_path).best.score == 0.5


def test_a_late_checkpoint_does_not_bring_back_the_metric_of_its_time(tmp_path):
    """`recover` on the machine of an earlier job, after the monitor was changed."""
    location = Location.parse(tmp_path / "run")
    spool = Spool(location, tmp_path / "old")
    left = {"series": EACH, "logs": {"val_accuracy": 0.9, "val_loss": 0.8}}
    seal(spool, 0, 0.9, rules=terms(monitor="val_accuracy", mode="max"), **left)
    spool.close()
    fit(model(), [Scores(0.7, name="val_loss"), RemoteModelCheckpoint(str(tmp_path / "run" / EACH))], epochs=1)
    run = Run(tmp_path / "run", spool_dir=tmp_path / "old")
    run.recover()
    assert run.series[EACH].monitor == "val_loss"
    assert run.best.score == 0.7
    assert run.find(record(0).id).score == 0.8
