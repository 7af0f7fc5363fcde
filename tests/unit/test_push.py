"""Files that exist already become checkpoints of a run."""

import json
import math
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import h5py
import numpy as np
import pytest
from records import EPOCH, TEMPLATE, seal, terms
from typer.testing import CliRunner

from remote_ckpt.cli._app import app
from remote_ckpt.errors import CorruptCheckpointError, LocationError, TemplateError, TransientError
from remote_ckpt.location import Location
from remote_ckpt.run import Run
from remote_ckpt.saving.spool import Spool
from remote_ckpt.testing.faulty import FaultyStore, Refuse, on


def invoke(*arguments):
    return CliRunner(env={"COLUMNS": "40"}).invoke(app, [str(argument) for argument in arguments])


def weights(path, number=0.0):
    """A small HDF5 file as Keras writes them."""
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/dense/vars/0", data=np.full(8, number, "float32"))
    return path


@pytest.fixture
def file(tmp_path):
    return weights(tmp_path / "mine.weights.h5")


@pytest.fixture
def run(tmp_path):
    """A run with two checkpoints of a training, the second of which is the best."""
    folder = tmp_path / "run"
    spool = Spool(Location.parse(folder))
    for number, score in enumerate((0.5, 0.25)):
        seal(spool, number, score)
    spool.close()
    made = Run(folder)
    made.recover()
    return made


def test_a_file_joins_the_runs_series_and_becomes_the_best_if_it_is(run, file):
    """Judged by the same metric, named by the same template, of the epoch after the latest."""
    record = run.push(file, score=0.125)
    assert (record.series, record.key, record.epoch) == (TEMPLATE, "w-03.weights.h5", 2)
    assert run.best == record
    assert run.pull().read_bytes() == file.read_bytes()
    assert record.logs == {"val_loss": 0.125}


@pytest.mark.parametrize("score", [0.25, 0.3, math.nan])
def test_a_better_best_stays_the_best(run, file, score):
    """Of equals the first; NaN never wins."""
    record = run.push(file, score=score)
    assert run.best.id == "id1"
    assert record.id in [one.id for one in run.checkpoints]


def test_a_name_that_is_taken_is_not_overwritten(run, file):
    """The pushed one gets another."""
    before = Path(run.best.url).read_bytes()
    (Path(run.url) / "w-02.weights.h5").write_bytes(b"somebody's")
    record = run.push(file, score=0.1, epoch=1)
    assert record.key.startswith("w-02-")
    assert (Path(run.url) / "w-02.weights.h5").read_bytes() == b"somebody's"
    assert Path(run.find("id1").url).read_bytes() == before


def test_pushing_again_changes_nothing(run, file):
    """As after an interrupted script."""
    first = run.push(file, score=0.1)
    revision = run.manifest().revision
    assert run.push(file, score=0.1) == first
    assert run.manifest().revision == revision
    assert run.push(file, score=0.2) != first


def test_pushing_again_goes_on_with_what_a_failure_left(run, file, monkeypatch):
    """One checkpoint comes of it, not two."""
    healthy = run.store
    broken = FaultyStore(healthy)
    broken.plan = on("upload", Refuse(TransientError))
    monkeypatch.setattr(run, "_store", broken)
    with pytest.raises(TransientError):
        run.push(file, score=0.1)
    (waiting,) = run.pending()
    monkeypatch.setattr(run, "_store", healthy)
    assert run.push(file, score=0.1).id == waiting.record.id
    assert run.pending() == []
    assert len(run.checkpoints) == 3


def test_an_old_file_does_not_become_the_latest(run, file):
    """When it was written is when it was captured; the future is not believed."""
    old = datetime(2020, 1, 1, tzinfo=timezone.utc).timestamp()
    os.utime(file, (old, old))
    run.push(file, score=0.1)
    assert run.latest.id == "id1"
    later = (datetime.now(timezone.utc) + timedelta(days=9)).timestamp()
    os.utime(file, (later, later))
    assert run.push(file, score=0.05).created <= datetime.now(timezone.utc)


def captured(file, seconds):
    """Have the file written so long after the run's first checkpoint was captured."""
    moment = (EPOCH + timedelta(seconds=seconds)).timestamp()
    os.utime(file, (moment, moment))


@pytest.mark.parametrize(("seconds", "epoch"), [(-1, 0), (0.5, 1), (1.5, 2)])
def test_the_epoch_of_a_file_follows_from_the_time_it_was_written(run, file, seconds, epoch):
    """It is the one after the checkpoint captured last before it, so an old file's is not after the latest."""
    captured(file, seconds)
    assert run.push(file, score=0.9).epoch == epoch
    assert run.latest.epoch == max(epoch, 1)


def test_retention_keeps_the_latest_and_lets_an_old_file_go_first(run, file):
    """By the rule that `latest` follows, whenever it was committed."""
    captured(file, 0.5)
    pushed = run.push(file, score=0.9)
    assert {record.id for record in run.prune(keep_last=1)} == {"id0", pushed.id}
    assert run.latest.id == "id1"
    assert [record.id for record in run.checkpoints] == ["id1"]


def test_of_several_of_one_epoch_the_latest_is_found(run, file):
    """Not the one committed last."""
    captured(file, -1)
    run.push(file, score=0.9, epoch=1)
    assert run.find(1).id == "id1"


@pytest.mark.parametrize("score", [np.array([0.125]), np.float32(0.125)])
def test_a_score_may_be_an_array_of_one_number(run, file, score):
    """As a metric may."""
    assert run.push(file, score=score).score == 0.125


def test_a_score_that_is_no_number_is_refused(run, file):
    """Too large ones too."""
    with pytest.raises(ValueError, match="score is a number"):
        run.push(file, score=10**400)


def test_what_is_no_weights_file_is_refused(run, tmp_path):
    """Before anything is sent; the message says what is wrong."""
    bad = tmp_path / "bad.weights.h5"
    bad.write_bytes(b"not HDF5")
    with pytest.raises(CorruptCheckpointError, match="not an HDF5 file"):
        run.push(bad, score=0.1)
    bad.rename(tmp_path / "bad.keras")
    with pytest.raises(CorruptCheckpointError, match=r"not a \.keras archive"):
        run.push(tmp_path / "bad.keras", score=0.1)
    with pytest.raises(LocationError, match="must end in"):
        run.push(tmp_path / "model.pt", score=0.1)
    with pytest.raises(LocationError, match="does not exist"):
        run.push(tmp_path / "none.h5", score=0.1)
    assert len(run.checkpoints) == 2


def test_another_metric_than_the_series_own_is_refused(run, file):
    """All its records would be judged anew."""
    with pytest.raises(LocationError, match=r"judged by val_loss \(min\)"):
        run.push(file, score=0.9, monitor="val_accuracy")
    with pytest.raises(LocationError, match="judged by"):
        run.push(file, score=0.9, mode="max")


def test_a_run_may_begin_with_a_push(tmp_path, file):
    """Under a name of its own."""
    run = Run(tmp_path / "new")
    record = run.push(file, score=0.9, monitor="val_accuracy", epoch=4)
    assert (record.key, record.epoch) == ("pushed-05.weights.h5", 4)
    assert run.series[record.series].mode == "max"
    assert run.push(file, score=0.8).series == record.series


def test_the_url_may_name_the_filename(tmp_path, file):
    """Without a field it shows the best, as training's does."""
    run = Run(tmp_path / "new" / "best.weights.h5")
    run.push(file, score=0.5)
    worse = run.push(weights(file, 1), score=0.75)
    shown = tmp_path / "new" / "best.weights.h5"
    assert shown.read_bytes() == Path(run.best.url).read_bytes()
    assert run.best.id != worse.id
    assert len(run.checkpoints) == 2
    with pytest.raises(LocationError, match="suffixes differ"):
        Run(tmp_path / "new" / "best.keras").push(file, score=0.5)


def test_metrics_in_the_template_must_be_given(tmp_path, file):
    """The message says how."""
    run = Run(tmp_path / "new" / "w-{epoch}-{val_loss:.1f}-{acc:.1f}.weights.h5")
    with pytest.raises(TemplateError, match="--log"):
        run.push(file, score=0.5)
    assert run.push(file, score=0.5, logs={"acc": 0.75}).key == "w-1-0.5-0.8.weights.h5"


def test_several_series_must_be_told_apart(run, file):
    """The message names them."""
    spool = Spool(run.location)
    seal(spool, 5, series="other-{epoch}.weights.h5", key="other-6.weights.h5")
    spool.close()
    run.recover()
    with pytest.raises(LocationError, match="several series"):
        run.push(file, score=0.1)


def test_a_new_series_is_judged_as_the_others_of_the_run(tmp_path, file):
    """So that the run still has one best."""
    spool = Spool(Location.parse(tmp_path / "run"))
    seal(spool, 0, 0.5, rules=terms(monitor="val_auc", mode="max"))
    spool.close()
    run = Run(tmp_path / "run")
    run.recover()
    weights(tmp_path / "whole.h5")
    record = run.push(tmp_path / "whole.h5", score=0.9)
    assert record.series == "pushed-{epoch:02d}.h5"
    assert run.series[record.series].monitor == "val_auc"
    assert run.best == record


def test_push_on_the_command_line(run, file):
    """Epochs count from one; the best is told."""
    result = invoke("push", file, run.url, "--score", "0.125", "--epoch", "7", "--log", "loss=0.5")
    assert result.stdout == f"epoch 7  val_loss 0.125  best  {run.url}/w-07.weights.h5\n"
    assert run.best.epoch == 6
    assert run.best.logs == {"val_loss": 0.125, "loss": 0.5}
    told = json.loads(invoke("push", file, run.url, "--score", "0.5", "--json").stdout)
    assert (told["best"], told["epoch"], told["monitor"]) == (False, 8, "val_loss")


def test_wrong_arguments_of_push_are_told(run, file):
    """With exit code 2."""
    assert invoke("push", file, run.url).exit_code == 2
    for flags in (["--epoch", "0"], ["--mode", "up"], ["--log", "loss"], ["--log", "loss=x"]):
        assert invoke("push", file, run.url, "--score", "1", *flags).exit_code == 2
    result = invoke("push", file.with_name("none.h5"), run.url, "--score", "1")
    assert result.exit_code == 1
    assert result.stderr == f"remote-ckpt: {file.with_name('none.h5')} does not exist.\n"


def test_push_to_a_bucket(get_server, prefix, tmp_path, file):
    """Through the same upload as training's."""
    server = get_server("seaweedfs")
    run = Run(server.url(prefix), storage_options=server.storage_options)
    record = run.push(file, score=0.5)
    assert run.best == record
    assert run.pull(to=tmp_path / "back.weights.h5").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", ["{epoch:0200000000d}.weights.h5", "{epoch.__class__.__mro__}.weights.h5"])
def test_a_series_name_from_the_bucket_is_not_evaluated(file, tmp_path, name):
    """Whoever may write to the bucket names series; a push formatted such a name."""
    run = Run(tmp_path / "named")
    seal(spool := Spool(run.location), 0, 0.5)
    spool.close()
    run.recover()
    manifest = tmp_path / "named" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(TEMPLATE, name))
    with pytest.raises(LocationError, match="cannot be used"):
        run.push(file, score=0.25)
