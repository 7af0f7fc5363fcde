"""The writer's queues: what is superseded, what is bounded, what a flush means."""

from __future__ import annotations

import threading

import pytest
from models import model
from waiting import HANG, until

from remote_ckpt.errors import DrainError, SaveFailedError
from remote_ckpt.run import Run
from remote_ckpt.spool import Spool
from remote_ckpt.stores.local import LocalStore

NAMED = "w-{epoch:02d}.weights.h5"


@pytest.fixture
def gate(monkeypatch):
    """Uploads wait at it while it is closed; `gate.reached` tells that one does."""
    gate = threading.Event()
    gate.reached = threading.Event()
    real = LocalStore.upload

    def upload(self, *args, **options):
        gate.reached.set()
        assert gate.wait(HANG)
        return real(self, *args, **options)

    monkeypatch.setattr(LocalStore, "upload", upload)
    yield gate
    gate.set()


def writer(tmp_path, **options):
    run = Run(str(tmp_path / "run"), spool_dir=tmp_path / "spool")
    return run, run.writer(NAMED, monitor="score", mode="max", **options)


def save_all(saving, scores):
    made = model()
    return [saving.save(made, epoch=epoch, logs={"score": score}) for epoch, score in enumerate(scores)]


def test_a_newer_best_takes_the_place_of_one_that_waits(tmp_path, gate):
    """The one under way is finished; of those behind it only the best is uploaded."""
    run, saving = writer(tmp_path, save_best_only=True)
    made = model()
    saving.save(made, epoch=0, logs={"score": 0.0})
    assert gate.reached.wait(HANG)
    for epoch in range(1, 6):
        assert saving.save(made, epoch=epoch, logs={"score": epoch / 10})
    assert saving.best == 0.5
    until(lambda: [entry.record.epoch for entry in run.pending()] == [0, 5])
    gate.set()
    saving.close()
    assert [record.epoch for record in run.checkpoints] == [0, 5]
    assert saving.stats.superseded == 4
    assert saving.stats.pending == 0


def test_without_save_best_only_every_checkpoint_arrives(tmp_path, gate):
    """However long the network takes."""
    run, saving = writer(tmp_path)
    save_all(saving, [0.5, 0.4, 0.6, 0.1])
    until(lambda: len(run.pending()) == 4)
    assert run.checkpoints == []
    gate.set()
    saving.close()
    assert [record.epoch for record in run.checkpoints] == [0, 1, 2, 3]
    assert run.best.epoch == 2


def test_a_full_spool_gives_up_the_oldest_but_never_the_best(tmp_path, gate, caplog):
    """And says so."""
    run, saving = writer(tmp_path)
    save_all(saving, [0.1])
    assert gate.reached.wait(HANG)
    size = run.pending()[0].record.size
    saving._spool.limit = size * 4
    made = model()
    for epoch, score in enumerate([0.9, 0.2, 0.3, 0.4], start=1):
        saving.save(made, epoch=epoch, logs={"score": score})
    until(lambda: 4 in [entry.record.epoch for entry in run.pending()])
    gate.set()
    with pytest.raises(SaveFailedError, match="spool_limit"):
        saving.close()
    assert saving.stats.dropped >= 1
    assert "was dropped before it was uploaded" in caplog.text
    assert run.best.score == 0.9
    assert run.latest.score == 0.4


def test_flush_says_what_is_left_and_a_later_one_finishes_it(tmp_path, gate):
    """It never returns as if all were well."""
    run, saving = writer(tmp_path)
    save_all(saving, [0.5])
    until(lambda: run.pending())
    with pytest.raises(DrainError, match="remote-ckpt recover") as caught:
        saving.flush(timeout=0.5)
    assert isinstance(caught.value, TimeoutError)
    assert len(run.pending()) == 1
    gate.set()
    saving.flush()
    assert run.best.score == 0.5
    saving.close()
    assert run.pending() == []


def test_a_writer_closes_after_the_users_own_error(tmp_path):
    """What was saved before it is in the bucket."""
    run, saving = writer(tmp_path)
    with pytest.raises(ZeroDivisionError), saving:
        assert save_all(saving, [0.5]) == 1 / 0
    assert run.best.score == 0.5


def test_a_checkpoint_that_vanished_from_the_spool_holds_up_nobody(tmp_path, gate, caplog):
    """It is told as lost, once by the log and once by the flush; the one behind it arrives."""
    run, saving = writer(tmp_path)
    save_all(saving, [0.5, 0.6, 0.7])
    until(lambda: len(run.pending()) == 3)
    run.pending()[1].path.unlink()
    gate.set()
    with pytest.raises(SaveFailedError):
        saving.flush()
    saving.flush()
    assert [record.epoch for record in run.checkpoints] == [0, 2]
    assert "has vanished from the spool" in caplog.text
    saving.close()


def test_a_snapshot_that_cannot_be_written_is_told_by_flush(tmp_path, monkeypatch):
    """Not only by the log: a flush that returns means that all is there."""
    run, saving = writer(tmp_path)
    monkeypatch.setattr(Spool, "seal", lambda *args, **options: (_ for _ in ()).throw(OSError(5, "broken disk")))
    save_all(saving, [0.5])
    with pytest.raises(SaveFailedError, match="broken disk"):
        saving.flush()
    monkeypatch.undo()
    save_all(saving, [0.6])
    saving.close()
    assert run.best.score == 0.6
