"""The writer's queues and its life: what is superseded, what is bounded, what a flush means, and which calls when."""

from __future__ import annotations

import gc
import os
import sys
import threading
from pathlib import Path

import pytest
from models import fit, model
from processes import finish
from records import seal, terms
from waiting import HANG, until

from remote_ckpt import RemoteModelCheckpoint
from remote_ckpt.errors import AccessDeniedError, DrainError, SaveFailedError, StoreFullError, WriterStateError
from remote_ckpt.run import Run
from remote_ckpt.saving import exit_drain
from remote_ckpt.saving import spool as spool_module
from remote_ckpt.saving.spool import Spool
from remote_ckpt.saving.writer import SeriesOptions, State, Writer
from remote_ckpt.stores.local import LocalStore

ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}
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


# Its life


def fresh(tmp_path):
    run = Run(str(tmp_path / "run"), spool_dir=tmp_path / "spool")
    location = run.location.with_template(NAMED)
    return run, Writer(location, run.store, SeriesOptions(), spool=Spool(run.location, tmp_path / "spool"))


CALLS = {
    "save": lambda writer: writer.save(model(), epoch=0),
    "submit": lambda writer: writer.submit(model(), epoch=0),
    "urgent": lambda writer: writer.submit(model(), epoch=0, urgent=True),
    "flush": lambda writer: writer.flush(),
}


def test_a_writer_goes_through_named_states(tmp_path):
    """From new to closed."""
    _, saving = fresh(tmp_path)
    states = [saving.state]
    for act in (saving.open, saving.close, saving.close):
        act()
        states.append(saving.state)
    assert states == [State.NEW, State.OPEN, State.CLOSED, State.CLOSED]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_writer_that_is_closed_takes_nothing(tmp_path, call):
    """It raises at once instead of promising what nobody will do; however often it is asked."""
    run, saving = fresh(tmp_path)
    saving.open()
    saving.close()
    for _ in range(3):
        with pytest.raises(WriterStateError, match="was closed"):
            call(saving)
    assert run.checkpoints == []


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_writer_that_is_not_open_takes_nothing(tmp_path, call):
    """It does not know yet what is there to beat."""
    with pytest.raises(WriterStateError, match="was not opened"):
        call(fresh(tmp_path)[1])


def test_a_writer_is_opened_once(tmp_path):
    """Neither twice, nor again after its end."""
    _, saving = fresh(tmp_path)
    saving.open()
    with pytest.raises(WriterStateError, match="open already"):
        saving.open()
    saving.close()
    with pytest.raises(WriterStateError, match="was closed"):
        saving.open()


def test_a_new_writer_is_opened_by_with(tmp_path):
    """And closed at its end."""
    run, saving = fresh(tmp_path)
    with saving as entered:
        entered.save(model(), epoch=0)
    assert saving.state is State.CLOSED
    assert len(run.checkpoints) == 1


def test_closing_a_writer_that_was_never_opened_is_harmless(tmp_path):
    """It waits for nothing."""
    _, saving = fresh(tmp_path)
    saving.close()
    assert saving.state is State.CLOSED


def test_a_save_that_waits_ends_when_the_writer_is_closed(tmp_path, monkeypatch):
    """By another thread: it would wait for a place in the queue for ever."""
    _, saving = writer(tmp_path)
    disk, waits = threading.Event(), threading.Event()
    real, wait = Spool.seal, threading.Condition.wait
    monkeypatch.setattr(Spool, "seal", lambda *args, **options: (disk.wait(60), real(*args, **options))[1])
    made, outcome = model(), []

    def noted(self, timeout=None):
        if threading.current_thread() is third:
            waits.set()
        return wait(self, timeout)

    def save():
        try:
            saving.save(made, epoch=2)
        except WriterStateError as exc:
            outcome.append(exc)

    third = threading.Thread(target=save)
    saving.save(made, epoch=0)
    until(lambda: saving._pipeline._sealing)
    saving.save(made, epoch=1)
    monkeypatch.setattr(threading.Condition, "wait", noted)
    third.start()
    assert waits.wait(60)
    with pytest.raises(DrainError):
        saving.close(timeout=0.0)
    third.join(60)
    disk.set()
    assert len(outcome) == 1


def test_what_a_closed_writer_could_not_upload_is_anybodys_to_recover(tmp_path, monkeypatch):
    """In the same process, too: it has let go of its locks."""
    run, saving = writer(tmp_path)
    monkeypatch.setattr(LocalStore, "upload", lambda *args, **options: (_ for _ in ()).throw(StoreFullError("no room")))
    save_all(saving, [0.5])
    with pytest.raises(DrainError):
        saving.close()
    monkeypatch.undo()
    assert [record.score for record in run.recover()] == [0.5]


def test_an_upload_under_way_at_the_end_is_finished_and_then_lets_go(tmp_path, gate):
    """What waits behind it stays in the spool, for whoever recovers it."""
    run, saving = writer(tmp_path)
    save_all(saving, [0.5, 0.6])
    until(lambda: len(run.pending()) == 2)
    with pytest.raises(DrainError):
        saving.close(timeout=0.0)
    gate.set()
    until(lambda: not any(thread.is_alive() for thread in saving._pipeline._threads))
    assert [record.epoch for record in run.checkpoints] == [0]
    assert [record.epoch for record in run.recover()] == [1]


def test_an_open_that_fails_holds_nothing(tmp_path, monkeypatch):
    """What an earlier process left is anybody's to recover."""
    run, saving = writer(tmp_path)
    monkeypatch.setattr(LocalStore, "upload", lambda *args, **options: (_ for _ in ()).throw(StoreFullError("no room")))
    save_all(saving, [0.5])
    with pytest.raises(DrainError):
        saving.close()
    monkeypatch.undo()
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "read", lambda *args, **options: (_ for _ in ()).throw(AccessDeniedError("no")))
        with pytest.raises(AccessDeniedError):
            run.writer(NAMED)
    assert [record.score for record in run.recover()] == [0.5]


def test_an_adoption_that_fails_holds_nothing(tmp_path, monkeypatch):
    """In the middle: the first of two folders is locked already."""
    run = Run(str(tmp_path / "run"), spool_dir=tmp_path / "spool")
    for number in (1, 2):
        spool = Spool(run.location, tmp_path / "spool")
        seal(spool, number)
        spool._own.lock.release()
    real = spool_module._sealed_in
    folders = []

    def broken(folder, **options):
        folders.append(folder)
        if len(folders) == 2:
            raise OSError(5, "broken disk")
        return real(folder, **options)

    with monkeypatch.context() as patch:
        patch.setattr(spool_module, "_sealed_in", broken)
        with pytest.raises(OSError, match="broken disk"):
            run.writer(NAMED)
    assert len(run.recover()) == 2


def test_a_spool_that_cannot_be_looked_through_does_not_end_training(tmp_path, monkeypatch, caplog):
    """Under "warn"; what is saved is uploaded, and what was left there stays for another day."""
    monkeypatch.setattr(Spool, "adopt", lambda spool: (_ for _ in ()).throw(OSError(5, "broken disk")))
    saving = RemoteModelCheckpoint(str(tmp_path / "run" / NAMED))
    assert fit(model(), [saving], epochs=1).epoch == [0]
    assert "broken disk" in caplog.text
    assert len(saving.run.checkpoints) == 1


def test_an_open_that_failed_may_be_repeated(tmp_path, monkeypatch):
    """The store answers again."""
    run, saving = fresh(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "read", lambda *args, **options: (_ for _ in ()).throw(AccessDeniedError("no")))
        with pytest.raises(AccessDeniedError):
            saving.open()
    assert saving.state is State.NEW
    saving.open()
    saving.save(model(), epoch=0)
    saving.close()
    assert len(run.checkpoints) == 1


def test_a_writer_that_is_forgotten_finishes_its_work_and_lets_go(tmp_path, gate):
    """Nobody refers to it; its threads end once all is in the bucket, and the exit has nothing to wait for."""
    run, saving = writer(tmp_path)
    save_all(saving, [0.5, 0.6])
    threads = saving._pipeline._threads
    del saving
    gc.collect()
    assert len(exit_drain._open) == 1
    gate.set()
    until(lambda: not any(thread.is_alive() for thread in threads))
    assert [record.epoch for record in run.checkpoints] == [0, 1]
    assert run.pending() == []
    assert not exit_drain._open


PROGRAM = """
import sys, threading
from models import fit, model
from remote_ckpt import Run
from remote_ckpt.stores.local import LocalStore

gate, real = threading.Event(), LocalStore.upload
LocalStore.upload = lambda *args, **options: (gate.wait(), real(*args, **options))[1]
def saved(url, template):
    writer = Run(url).writer(template)
    writer.save(model(), epoch=0)
for url in sys.argv[2:]:
    saved(url, "w-{epoch}.weights.h5")
import gc; gc.collect()
"""


def test_a_writer_that_is_forgotten_is_drained_at_exit(tmp_path):
    """And the exit says that it waits."""
    program = PROGRAM + "threading._register_atexit(gate.set)\n"  # the last registered is the first called
    done = finish([sys.executable, "-c", program, "", tmp_path / "run"], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "finishing uploads to" in done.stderr
    assert len(Run(str(tmp_path / "run")).checkpoints) == 1


def test_ctrl_c_at_exit_stops_all_waiting(tmp_path):
    """Not one writer's, to wait for the next; one message names what waits where."""
    program = PROGRAM + (
        "import _thread, remote_ckpt.saving.pipeline as p\n"
        "flush = p.Pipeline.flush\n"
        "def interrupted(self, timeout):\n"
        "    _thread.interrupt_main()\n"
        "    flush(self, timeout)\n"
        "p.Pipeline.flush = interrupted\n"
    )
    runs = [tmp_path / name for name in "abc"]
    done = finish([sys.executable, "-c", program, "", *runs], env=ENVIRONMENT)
    assert done.stderr.count("finishing uploads to") == 1, done.stderr
    assert done.stderr.count("stopped waiting") == 1
    for run in runs:
        assert f"remote-ckpt recover {run}" in done.stderr


def test_a_forked_child_is_not_given_its_parents_writer(tmp_path):
    """Its threads and locks are the parent's; and closing it there leaves them alone."""
    program = """
import os, sys
from models import fit, model
from remote_ckpt import Run
made = model()
writer = Run(sys.argv[1]).writer("w-{epoch}.weights.h5")
writer.save(made, epoch=0)
writer.flush()
child = os.fork()
if child == 0:
    try:
        writer.save(made, epoch=1)
    except RuntimeError as exc:
        print(exc, flush=True)
    writer.close()
    os._exit(0)
os.waitpid(child, 0)
writer.save(made, epoch=2)
writer.close()
"""
    done = finish([sys.executable, "-c", program, tmp_path / "run"], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "forked from" in done.stdout
    assert [record.epoch for record in Run(str(tmp_path / "run")).checkpoints] == [0, 2]


@pytest.fixture
def disk(monkeypatch):
    """Sealing waits at it while it is closed; `disk.reached` shows that one does."""
    disk = threading.Event()
    disk.reached = threading.Event()
    real = Spool.seal

    def sealed(self, *args, **options):
        disk.reached.set()
        assert disk.wait(60)
        return real(self, *args, **options)

    monkeypatch.setattr(Spool, "seal", sealed)
    yield disk
    disk.set()


@pytest.mark.parametrize("logs", [{}, {"score": float("nan")}, {"score": 0.7}])
def test_a_save_that_is_not_better_takes_the_place_of_none_that_waits_for_the_disk(tmp_path, disk, logs):
    """`validation_freq=2` gives one without a score after a better one; it waits for the disk instead."""
    run, saving = writer(tmp_path, save_best_only=True)
    made = model()
    saving.save(made, epoch=0, logs={"score": 0.1})
    assert disk.reached.wait(30)
    saving.save(made, epoch=1, logs={"score": 0.9})
    third = threading.Thread(target=saving.submit, args=(made,), kwargs={"epoch": 2, "logs": logs})
    third.start()
    third.join(0.5)  # a save that took the place of the waiting one would do so at once
    disk.set()
    third.join()
    saving.close()
    assert [record.epoch for record in run.checkpoints] == [0, 1, 2]
    assert run.best.score == 0.9


def test_a_better_save_takes_the_place_of_one_that_waits_for_the_disk(tmp_path, disk):
    """Also of one without a score, which could not be the best."""
    run, saving = writer(tmp_path, save_best_only=True)
    made = model()
    saving.save(made, epoch=0, logs={"score": 0.1})
    assert disk.reached.wait(30)
    for epoch, logs in enumerate(({}, {"score": 0.5}, {"score": 0.9}), start=1):
        saving.save(made, epoch=epoch, logs=logs)
    disk.set()
    saving.close()
    assert [record.epoch for record in run.checkpoints] == [0, 3]
    assert saving.stats.superseded == 2


def test_a_save_without_a_score_takes_the_place_of_none_that_waits_for_the_network(tmp_path, gate):
    """By the same rule."""
    run, saving = writer(tmp_path, save_best_only=True)
    made = model()
    saving.save(made, epoch=0, logs={"score": 0.1})
    assert gate.reached.wait(30)
    for epoch, logs in enumerate(({"score": 0.9}, {}, {"score": 0.95}, {}), start=1):
        saving.save(made, epoch=epoch, logs=logs)
        until(lambda epoch=epoch: epoch in [entry.record.epoch for entry in run.pending()])
    gate.set()
    saving.close()
    assert [record.epoch for record in run.checkpoints] == [0, 3, 4]


def leave(tmp_path, number, score, *, monitor, mode="max", **changes):
    """Leave what a killed process had sealed."""
    spool = Spool(Run(str(tmp_path / "run")).location, tmp_path / "spool")
    seal(spool, number, score, rules=terms(monitor=monitor, mode=mode), **changes)
    spool.close()


def test_what_another_job_left_without_our_metric_is_not_let_go_of_for_a_number(tmp_path, gate):
    """It cannot be compared, and what is on the disk reaches the bucket."""
    leave(tmp_path, 0, 0.99, monitor="other", series=NAMED, logs={"other": 0.99})
    run, saving = writer(tmp_path, save_best_only=True)
    assert saving.best is None
    save_all(saving, [0.1, 0.2])
    until(lambda: 0.2 in [entry.record.score for entry in run.pending()])
    gate.set()
    saving.close()
    assert run.find("id0").score is None
    assert run.best.score == 0.2


def test_what_another_job_left_of_another_series_is_judged_by_its_own_terms(tmp_path):
    """Neither series changes the other's score to beat."""
    leave(tmp_path, 0, 0.99, monitor="other", series="{epoch}.weights.h5", key="1.weights.h5")
    run, saving = writer(tmp_path, save_best_only=True)
    saving.flush()
    assert saving.best is None
    assert saving.save(model(), epoch=0, logs={"score": 0.1})
    saving.close()
    judged = {name: (series.monitor, series.find("best").score) for name, series in run.series.items()}
    assert judged == {"{epoch}.weights.h5": ("other", 0.99), NAMED: ("score", 0.1)}


def test_a_full_spool_keeps_the_best_of_each_series(tmp_path, gate):
    """A number of another metric is no larger and no smaller than one of this."""
    leave(tmp_path, 0, 100.0, monitor="other", series="{epoch}.weights.h5", key="1.weights.h5")
    leave(tmp_path, 1, 50.0, monitor="other", series="{epoch}.weights.h5", key="2.weights.h5")
    run, saving = writer(tmp_path)
    assert gate.reached.wait(30)
    save_all(saving, [0.9])
    until(lambda: 0.9 in [entry.record.score for entry in run.pending()])
    size = max(entry.record.size for entry in run.pending())
    saving._spool.limit = size * 3
    made = model()
    for epoch, score in enumerate([0.2, 0.3, 0.4], start=1):
        saving.save(made, epoch=epoch, logs={"score": score})
    until(lambda: 3 in [entry.record.epoch for entry in run.pending()])
    gate.set()
    with pytest.raises(SaveFailedError, match="spool_limit"):
        saving.close()
    assert {series.find("best").score for series in run.series.values()} == {100.0, 0.9}
