"""A run whose manifest is gone: who says so, and how it comes back."""

from __future__ import annotations

import logging
import shutil

import keras
import pytest
from models import data, model
from records import TEMPLATE, checkpoint, terms
from typer.testing import CliRunner

from remote_ckpt import RemoteModelCheckpoint, load_best, load_latest
from remote_ckpt.cli._app import app
from remote_ckpt.errors import ManifestError, NoCheckpointError
from remote_ckpt.location import MANIFEST_KEY, Location
from remote_ckpt.manifest import Committer
from remote_ckpt.run import Run
from remote_ckpt.stores import Expect, open_store

NAME = "w-{epoch:02d}-{val_loss:.2f}.weights.h5"
FIXED = "best.weights.h5"


def invoke(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in words])


@pytest.fixture(autouse=True)
def _spool(tmp_path, monkeypatch):
    monkeypatch.setenv("REMOTE_CKPT_SPOOL", str(tmp_path / "spool"))


def train(folder, name, epochs=3, **options):
    made = model()
    x, y = data()
    callback = RemoteModelCheckpoint(f"{folder}/{name}", **options)
    made.fit(x, y, validation_split=0.3, epochs=epochs, verbose=0, callbacks=[callback])
    return callback


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs of three epochs, one by a template and one under a fixed name."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder / "named", NAME)
    train(folder / "fixed", FIXED, save_best_only=True)
    return folder


@pytest.fixture
def lost(trained, tmp_path):
    """A copy of the first, without its manifest."""
    shutil.copytree(trained / "named", tmp_path / "run")
    (tmp_path / "run" / MANIFEST_KEY).unlink()
    return tmp_path / "run"


@pytest.fixture
def lost_fixed(trained, tmp_path):
    """A copy of the second, without its manifest."""
    shutil.copytree(trained / "fixed", tmp_path / "run")
    (tmp_path / "run" / MANIFEST_KEY).unlink()
    return tmp_path / "run"


# Who says so


def test_ls_reports_files_that_no_manifest_names(lost):
    """And the command that mends it."""
    result = invoke("ls", lost)
    assert result.exit_code == 1
    assert "3 files that no manifest names" in result.output + result.stderr
    assert "remote-ckpt rebuild" in result.output + result.stderr


def test_doctor_reports_files_that_no_manifest_names(lost):
    """As something to look at."""
    line = next(line for line in invoke("doctor", lost, "--size", "9").stdout.splitlines() if " manifest " in line)
    assert line.startswith("warn")
    assert "3 files that no manifest names" in line


@pytest.mark.parametrize("load", [load_best, load_latest])
def test_loading_reports_files_that_no_manifest_names(lost, load):
    """Instead of asking whether the URL is right."""
    with pytest.raises(NoCheckpointError, match="3 files that no manifest names"):
        load(model(), str(lost))


def test_resume_does_not_begin_anew_beside_its_own_checkpoints(lost):
    """Nothing is trained, and nothing written."""
    before = sorted(path.name for path in lost.iterdir())
    with pytest.raises(ManifestError, match="3 files that no manifest names"):
        train(lost, NAME, resume="latest")
    assert sorted(path.name for path in lost.iterdir() if path.name != ".remote_ckpt") == [
        name for name in before if name != ".remote_ckpt"
    ]


def test_resume_does_not_begin_anew_behind_a_fixed_name(lost_fixed):
    """Its objects lie under the hidden folder."""
    with pytest.raises(ManifestError, match="no manifest names"):
        train(lost_fixed, FIXED, resume="best", save_best_only=True)


def test_other_files_beside_a_first_start_are_none_of_its_business(tmp_path):
    """A pretrained backbone, a fixed name of Keras's own, another template's files."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("backbone.weights.h5", "vgg16.h5", "best.weights.h5", "other-01.weights.h5", "w-final.weights.h5"):
        (folder / name).write_bytes(b"somebody's")
    train(folder, NAME, epochs=1, resume="latest")
    train(folder, FIXED, epochs=1, resume="latest", save_best_only=True)
    assert len(Run(str(folder)).checkpoints) == 2


def test_files_of_runs_below_do_not_count(trained):
    """A prefix of runs is no lost run."""
    assert Run(str(trained)).unnamed() == []


def test_an_intact_run_has_no_unnamed_files(trained):
    """Under a template, and behind a fixed name."""
    assert Run(str(trained / "named")).unnamed() == []
    assert Run(str(trained / "fixed")).unnamed() == []


def test_what_was_pruned_is_not_unnamed(trained, tmp_path):
    """A kill between pruning and deleting left it: the history has its name."""
    shutil.copytree(trained / "named", tmp_path / "run")
    run = Run(str(tmp_path / "run"))
    content = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.h5")}
    run.prune(keep_last=1)
    for path, old in content.items():
        if not path.exists():
            path.write_bytes(old)
    assert run.unnamed() == []
    assert run.rebuild() == []


# How it comes back


def test_a_rebuilt_run_is_resumed(lost, capsys):
    """At the epoch that its names tell."""
    result = invoke("rebuild", lost, "--template", NAME)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("recorded epoch") == 3
    callback = train(lost, NAME, epochs=5, resume="latest")
    assert callback.resumed_from.epoch == 2
    assert [record.epoch for record in Run(str(lost)).checkpoints] == [0, 1, 2, 3, 4]


def test_a_rebuilt_record_has_its_digests_and_no_score(lost, trained):
    """What a name holds is rounded."""
    before = Run(str(trained / "named")).checkpoints
    after = Run(f"{lost}/{NAME}").rebuild()
    facts = [(record.key, record.epoch, record.size, record.sha256, record.crc32c) for record in after]
    assert facts == [(record.key, record.epoch, record.size, record.sha256, record.crc32c) for record in before]
    assert [record.score for record in after] == [None, None, None]
    assert all(verdict.problem is None for verdict in Run(str(lost)).verify())


def test_rebuilding_twice_changes_nothing(lost):
    """The second time there is nothing to do."""
    Run(f"{lost}/{NAME}").rebuild()
    before = (lost / MANIFEST_KEY).read_bytes()
    result = invoke("rebuild", f"{lost}/{NAME}")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing to rebuild" in result.stderr
    assert (lost / MANIFEST_KEY).read_bytes() == before


def test_a_dry_run_writes_nothing(lost):
    """It only prints."""
    result = invoke("rebuild", lost, "--template", NAME, "--dry-run")
    assert result.stdout.count("would record epoch") == 3
    assert not (lost / MANIFEST_KEY).exists()


def test_without_a_template_one_is_guessed(lost):
    """The latest can be loaded; the true template takes its records over later."""
    Run(str(lost)).rebuild()
    assert list(Run(str(lost)).series) == ["w-{epoch:02d}-{unknown:.2f}.weights.h5"]
    assert load_latest(model(), str(lost)).epoch == 2
    with pytest.raises(ManifestError, match="no manifest names"):
        train(lost, NAME, resume="latest")
    Run(f"{lost}/{NAME}").rebuild()
    assert list(Run(str(lost)).series) == [NAME]
    assert train(lost, NAME, epochs=4, resume="latest").resumed_from.epoch == 2


def test_a_fixed_name_is_rebuilt_from_what_is_behind_it(lost_fixed):
    """And goes on as it was."""
    run = Run(str(lost_fixed))
    behind = run.rebuild()
    assert {record.series for record in behind} == {FIXED}
    train(lost_fixed, FIXED, epochs=1, resume="latest", save_best_only=True)
    assert (lost_fixed / FIXED).exists()


def test_what_is_damaged_is_passed_over(lost, caplog):
    """Half a file is no checkpoint."""
    caplog.set_level(logging.WARNING)
    damaged = sorted(lost.glob("w-*.h5"))[0]
    whole = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(whole[: len(whole) // 2])
    assert len(Run(f"{lost}/{NAME}").rebuild()) == 2
    assert "Passing over" in caplog.text


def test_a_manifest_put_back_too_old_gets_what_it_lacks(trained, tmp_path):
    """What it has keeps its score."""
    folder = tmp_path / "run"
    train(folder, NAME, epochs=1)
    old = (folder / MANIFEST_KEY).read_bytes()
    train(folder, NAME, epochs=3, resume="latest")
    (folder / MANIFEST_KEY).write_bytes(old)
    added = Run(f"{folder}/{NAME}").rebuild()
    records = Run(str(folder)).checkpoints
    assert [record.epoch for record in records] == [0, 1, 2]
    assert [record.score is None for record in records] == [False, True, True]
    assert [record.id for record in added] == [record.id for record in records[1:]]


def test_an_unreadable_manifest_is_not_overwritten(lost):
    """The user moves it away."""
    (lost / MANIFEST_KEY).write_text("{")
    with pytest.raises(ManifestError):
        Run(f"{lost}/{NAME}").rebuild()
    assert (lost / MANIFEST_KEY).read_text() == "{"


def test_segments_give_back_whole_records(tmp_path):
    """Scores, logs and times of all but the recent past; what was pruned stays so."""
    location = Location.parse(str(tmp_path / "run"))
    one = Committer(open_store(location), location)
    for number in range(70):
        record = checkpoint(number, 1.0 - number / 100, logs={"val_loss": 1.0 - number / 100, "loss": 5.0})
        one.store.write(record.key, b"abc", expect=Expect.ABSENT)
        one.commit(record, terms())
    one.store.delete("w-07.weights.h5")
    before = Run(str(tmp_path / "run")).series[TEMPLATE]
    one.store.delete(MANIFEST_KEY)
    Run(str(tmp_path / "run")).rebuild()
    after = Run(str(tmp_path / "run")).series[TEMPLATE]
    assert (after.monitor, after.mode) == ("val_loss", "min")
    assert list(after.checkpoints) == [c for c in before.checkpoints[:40] if c.id != "id7"]
    assert after.knows("id7")


def test_a_living_writer_prefers_what_it_remembers(lost, trained, tmp_path):
    """Somebody rebuilt the manifest while it lives: its scores are the true ones."""
    shutil.rmtree(lost)
    shutil.copytree(trained / "named", lost)
    with Run(str(lost)).writer(NAME) as writer:
        writer.save(model(), epoch=3, logs={"val_loss": 0.0})
        writer.flush()
        (lost / MANIFEST_KEY).unlink()
        Run(f"{lost}/{NAME}").rebuild()
        writer.save(model(), epoch=4, logs={"val_loss": 9.0})
    records = Run(str(lost)).checkpoints
    assert [record.epoch for record in records] == [0, 1, 2, 3, 4]
    assert all(record.score is not None for record in records)
    assert Run(str(lost)).best.epoch == 3


# Missing objects


def test_ls_shows_what_is_missing(trained, tmp_path):
    """Although no writer has noticed yet."""
    shutil.copytree(trained / "named", tmp_path / "run")
    run = Run(str(tmp_path / "run"))
    (tmp_path / "run" / run.best.key).unlink()
    result = invoke("ls", tmp_path / "run")
    lines = [line for line in result.stdout.splitlines() if ".weights.h5" in line and "missing" in line]
    assert len(lines) == 1
    assert sum("best" in line for line in result.stdout.splitlines()) == 1
    assert '"missing": true' in invoke("ls", tmp_path / "run", "--json").stdout


def test_ls_shows_the_manifest_to_whoever_may_not_list(trained, monkeypatch):
    """Reading alone is enough."""
    from remote_ckpt.errors import AccessDeniedError
    from remote_ckpt.stores.retrying import Retrying

    def forbidden(self, prefix=""):
        raise AccessDeniedError("no listing")

    monkeypatch.setattr(Retrying, "scan", forbidden)
    result = invoke("ls", trained / "named")
    assert result.exit_code == 0
    assert result.stdout.count(".weights.h5") == 4


def test_a_training_whose_manifest_is_removed_loses_nothing(tmp_path):
    """As a user sees it: between two epochs, and after the last one."""

    class Removes(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            callback.flush()
            if epoch in (1, 3):
                (tmp_path / "run" / MANIFEST_KEY).unlink()

    made, (x, y) = model(), data()
    callback = RemoteModelCheckpoint(f"{tmp_path}/run/{NAME}")
    made.fit(x, y, validation_split=0.3, epochs=4, verbose=0, callbacks=[callback, Removes()])
    run = Run(str(tmp_path / "run"))
    assert [record.epoch for record in run.checkpoints] == [0, 1, 2, 3]
    assert run.best.score == min(record.score for record in run.checkpoints)
