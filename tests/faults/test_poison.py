"""Checkpoints that the store can never accept: they step aside, and all others go on."""

from __future__ import annotations

import json
import logging
import threading

import pytest
from models import Scores, fit, model
from records import TEMPLATE, seal, terms
from typer.testing import CliRunner

from remote_ckpt import RemoteModelCheckpoint, Run
from remote_ckpt.cli._app import app
from remote_ckpt.errors import (
    AccessDeniedError,
    CredentialsExpiredError,
    DrainError,
    InvalidRequestError,
    ManifestError,
    SaveFailedError,
    TransientError,
)
from remote_ckpt.location import Location
from remote_ckpt.manifest import Committer
from remote_ckpt.saving.spool import Spool
from remote_ckpt.saving.writer import SeriesOptions, Writer
from remote_ckpt.testing.faulty import FaultyStore, Refuse
from remote_ckpt.testing.memory import MemoryStore

TAGGED = "{tag}-{epoch:02d}.weights.h5"
BAD = "bad"  # names that a link holds in the run's folder: the store refuses them, and nobody can foresee it
PLACE = Location.parse("memory-store://run").with_template("w-{epoch:02d}.weights.h5")


def save(writer, *tags):
    made = model()
    for epoch, tag in enumerate(tags):
        writer.save(made, epoch=epoch, logs={"tag": tag, "val_loss": 1.0})


def keys(run):
    return [record.key for record in run.checkpoints]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    for epoch in range(1, 5):
        (tmp_path / f"run/{BAD}-{epoch:02d}.weights.h5").symlink_to("elsewhere")
        (tmp_path / f"run/{BAD}-{epoch}.weights.h5").symlink_to("elsewhere")
    return Run(str(tmp_path / "run"), spool_dir=tmp_path / "spool")


@pytest.fixture
def left_poison(run):
    """A run whose spool holds one checkpoint that was refused, between two others that were not."""
    writer = run.writer(TAGGED)
    save(writer, "a", BAD, "b")
    with pytest.raises(DrainError):
        writer.close()
    return run


def test_a_name_that_the_store_refuses_holds_up_nobody(run):
    """Those behind it are in the bucket when `flush` returns."""
    with pytest.raises(DrainError), run.writer(TAGGED) as writer:
        save(writer, BAD, "a", BAD, "b")
    assert keys(run) == ["a-02.weights.h5", "b-04.weights.h5"]


def test_flush_names_what_was_refused_and_why(run):
    """Each time it is asked: not all that was saved is in the bucket."""
    writer = run.writer(TAGGED)
    save(writer, "a", BAD)
    for _ in range(2):
        with pytest.raises(DrainError, match=rf"{BAD}-02.weights.h5 was refused: .*symbolic link"):
            writer.flush()
    assert writer.stats.pending == 1


def test_what_is_refused_is_told_once_and_counted_once(run, caplog):
    """However often `flush` asks, and however many go past it."""
    writer = run.writer(TAGGED)
    save(writer, BAD, "a")
    for _ in range(3):
        with pytest.raises(DrainError):
            writer.flush()
    assert sum(BAD in line.getMessage() for line in caplog.records) == 1
    assert writer.stats.failures == 1


def test_what_is_refused_stays_in_the_spool(left_poison):
    """It is sealed, and somebody may put it elsewhere."""
    assert [entry.record.epoch for entry in left_poison.pending()] == [1]


def test_recover_passes_over_what_is_refused_and_names_it(left_poison, tmp_path):
    """The others are in the bucket, and it is still in the spool."""
    spool = Spool(left_poison.location, tmp_path / "spool")
    seal(spool, 9)
    spool.close()
    with pytest.raises(InvalidRequestError, match=BAD):
        left_poison.recover()
    assert "w-09.weights.h5" in keys(left_poison)
    assert [entry.record.epoch for entry in left_poison.pending()] == [1]


def test_recover_names_each_of_several_that_are_refused(run):
    """In one error."""
    writer = run.writer(TAGGED)
    save(writer, BAD, "a", BAD)
    with pytest.raises(DrainError):
        writer.close()
    with pytest.raises(InvalidRequestError) as caught:
        run.recover()
    assert f"/{BAD}-01" in str(caught.value)
    assert f"/{BAD}-03" in str(caught.value)


def test_the_command_recover_reports_both_kinds(left_poison, tmp_path, monkeypatch):
    """What it uploaded, and what was refused; and it fails."""
    monkeypatch.setenv("REMOTE_CKPT_SPOOL", str(tmp_path / "spool"))
    spool = Spool(left_poison.location, tmp_path / "spool")
    seal(spool, 9)
    spool.close()
    done = CliRunner().invoke(app, ["recover", left_poison.url, "--json"])
    told = json.loads(done.stdout)
    assert done.exit_code == 1
    assert [record["epoch"] for record in told["uploaded"]] == [10]
    assert [BAD in url for url in told["failed"]] == [True]


def test_a_name_that_is_too_long_holds_up_nobody(run, tmp_path):
    """Sealed by a version that did not look at its length; a local folder takes 255 bytes."""
    spool = Spool(run.location, tmp_path / "spool")
    for number, key in enumerate([f"{'x' * 260}.weights.h5", "short.weights.h5"]):
        seal(spool, number, key=key)
    spool.close()
    with pytest.raises(InvalidRequestError, match=r"[Nn]ame too long"):
        run.recover()
    assert keys(run) == ["short.weights.h5"]


def test_the_next_training_passes_over_what_an_earlier_one_left(left_poison):
    """Under `resume`, which uploads first what was left."""
    saving = RemoteModelCheckpoint(
        f"{left_poison.url}/w-{{epoch}}.weights.h5", resume="latest", spool_dir=left_poison._spool_dir
    )
    fit(model(), [saving], epochs=3)
    assert keys(left_poison)[-1] == "w-3.weights.h5"


def test_on_error_raise_is_told_of_a_refusal_by_the_next_save(run):
    """Also where another one went well in between."""
    writer = run.writer(TAGGED, on_error="raise")
    save(writer, BAD, "a")
    with pytest.raises(DrainError):
        writer.flush()
    with pytest.raises(SaveFailedError, match="symbolic link"):
        save(writer, "b")


def test_a_file_in_the_place_of_a_folder_holds_up_nobody_else(run, tmp_path):
    """The store says "not found" then, which is no refusal; the others go on all the same."""
    (tmp_path / "run/sub").write_text("in the way")
    with pytest.raises(DrainError), run.writer(TAGGED) as writer:
        save(writer, "sub/a", "b")
    assert keys(run) == ["b-02.weights.h5"]


# In any store


def in_memory(tmp_path, plan):
    store = FaultyStore(MemoryStore(), plan=plan)
    writer = Writer(PLACE, store, SeriesOptions(), spool=Spool(PLACE, tmp_path / "spool"))
    writer.open()
    return store, writer


def committed(store):
    return sorted(record.key for record in Committer(store, PLACE).load().of(PLACE.template).checkpoints)


def refuse_first(error, verb="upload"):
    return lambda call: Refuse(error) if (call.verb, call.key) == (verb, "w-01.weights.h5") else None


@pytest.mark.parametrize("error", [InvalidRequestError, AccessDeniedError, CredentialsExpiredError, ManifestError])
@pytest.mark.parametrize("verb", ["upload", "stat"])
def test_an_error_about_one_checkpoint_alone_holds_up_nobody(tmp_path, error, verb):
    """Whatever its class: the run can be read, and takes the others."""
    store, writer = in_memory(tmp_path, refuse_first(error, verb))
    save(writer, "", "", "")
    with pytest.raises(DrainError):
        writer.close()
    assert committed(store) == ["w-02.weights.h5", "w-03.weights.h5"]


def test_a_bug_of_ours_with_one_checkpoint_holds_up_nobody(tmp_path):
    """An error of no known class is no reason to stop."""
    store, writer = in_memory(tmp_path, refuse_first(ZeroDivisionError))
    save(writer, "", "")
    with pytest.raises(DrainError):
        writer.close()
    assert committed(store) == ["w-02.weights.h5"]


def test_a_store_that_refuses_all_makes_none_unacceptable(tmp_path):
    """As with a wrong region, where each request is invalid: all wait, in order, and go when it is put right."""
    broken = threading.Event()
    store, writer = in_memory(tmp_path, lambda call: Refuse(InvalidRequestError) if broken.is_set() else None)
    broken.set()
    save(writer, "", "")
    with pytest.raises(DrainError):
        writer.flush()
    broken.clear()
    writer.close()
    assert committed(store) == ["w-01.weights.h5", "w-02.weights.h5"]


def test_access_that_is_granted_later_is_used(tmp_path):
    """A `flush` asks again."""
    denied = threading.Event()
    denied.set()
    store, writer = in_memory(
        tmp_path, lambda call: Refuse(AccessDeniedError) if call.verb == "upload" and denied.is_set() else None
    )
    save(writer, "", "")
    with pytest.raises(DrainError, match="refused on purpose"):
        writer.flush()
    denied.clear()
    writer.close()
    assert committed(store) == ["w-01.weights.h5", "w-02.weights.h5"]


def test_an_urgent_one_that_is_refused_holds_up_nobody(tmp_path):
    """It goes before all others only as long as it can go."""
    store, writer = in_memory(tmp_path, refuse_first(InvalidRequestError))
    made = model()
    writer.submit(made, epoch=0, urgent=True)
    writer.submit(made, epoch=1)
    with pytest.raises(DrainError):
        writer.close()
    assert committed(store) == ["w-02.weights.h5"]


# After the commit

FIXED = Location.parse("memory-store://run").with_template("best.weights.h5")


def test_a_fixed_name_that_cannot_be_renewed_confirms_the_checkpoint(tmp_path, caplog):
    """The object is whole and the manifest names it; that its name shows an older one is told, by `flush` too."""
    caplog.set_level(logging.WARNING)
    store = FaultyStore(MemoryStore(), plan=lambda call: Refuse(AccessDeniedError) if call.verb == "copy" else None)
    writer = Writer(FIXED, store, SeriesOptions(save_best_only=True), spool=Spool(FIXED, tmp_path / "spool"))
    writer.open()
    writer.save(model(), epoch=0, logs={"val_loss": 0.5})
    with pytest.raises(SaveFailedError, match="could not be renewed"):
        writer.flush()
    assert "best.weights.h5 could not be renewed" in caplog.text
    assert Committer(store, FIXED).load().of(FIXED.template).find("best").score == 0.5
    assert writer.stats.pending == 0
    writer.close()


def test_a_fixed_name_is_renewed_once_the_store_answers_again(tmp_path):
    """What passes by itself is tried again."""
    down = threading.Event()
    down.set()
    store = FaultyStore(
        MemoryStore(), plan=lambda call: Refuse(TransientError) if call.verb == "copy" and down.is_set() else None
    )
    writer = Writer(FIXED, store, SeriesOptions(save_best_only=True), spool=Spool(FIXED, tmp_path / "spool"))
    writer.open()
    writer.save(model(), epoch=0, logs={"val_loss": 0.5})
    with pytest.raises(DrainError):
        writer.flush()
    down.clear()
    writer.close()
    assert store.stat("best.weights.h5").size


def test_recover_goes_on_after_a_fixed_name_that_cannot_be_renewed(run, tmp_path, monkeypatch):
    """And names it."""
    rules = terms(alias="best", keep_best=1, keep_last=1)
    spool = Spool(run.location, tmp_path / "spool")
    seal(spool, 1, rules=rules, series="best.weights.h5", key=".remote_ckpt/best-1.weights.h5")
    seal(spool, 2)
    spool.close()
    (tmp_path / "run/best.weights.h5").mkdir()
    with pytest.raises(SaveFailedError, match=r"best.weights.h5 could not be renewed"):
        run.recover()
    assert len(run.series[TEMPLATE].checkpoints) == 1
    assert run.pending() == []


def test_training_goes_on_with_what_is_refused(run):
    """Under "warn", to its end; and the score of what was refused is not the one to beat."""
    saving = RemoteModelCheckpoint(
        f"{run.url}/{{tag}}-{{epoch}}.weights.h5",
        monitor="val_score",
        mode="max",
        save_best_only=True,
        spool_dir=run._spool_dir,
    )
    tags = Scores(BAD, "a", "b", name="tag")

    class Drain(Scores):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch:
                with pytest.raises(DrainError):
                    saving.flush()

    history = fit(model(), [Drain(0.9, 0.5, 0.6), tags, saving], epochs=3)
    assert history.epoch == [0, 1, 2]
    assert [record.score for record in run.checkpoints] == [0.5, 0.6]
