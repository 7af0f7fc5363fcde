"""An urgent checkpoint: what is saved when the machine is about to go."""

from __future__ import annotations

import threading

from models import model
from waiting import HANG

from remote_ckpt.records.state_json import decode
from remote_ckpt.run import Run
from remote_ckpt.saving.spool import Spool
from remote_ckpt.stores.local import LocalStore

TEMPLATE = "w-{epoch:02d}-{val_loss:.2f}.weights.h5"


def test_it_goes_before_all_that_waits(tmp_path, monkeypatch):
    """Only the upload that is under way is finished first."""
    real, gate, began, order = LocalStore.upload, threading.Event(), threading.Event(), []

    def slow(self, key, *args, **options):
        order.append(key)
        began.set()
        assert gate.wait(HANG)
        return real(self, key, *args, **options)

    monkeypatch.setattr(LocalStore, "upload", slow)
    made = model()
    with Run(str(tmp_path / "run")).writer(TEMPLATE) as writer:
        writer.save(made, epoch=0, logs={"val_loss": 1.0})
        assert began.wait(HANG)  # or the urgent one would be the first of all
        for epoch in (1, 2):
            writer.save(made, epoch=epoch, logs={"val_loss": 1.0})
        writer.submit(made, epoch=3, batch=7, urgent=True)
        gate.set()
    assert order[0] == "w-01-1.00.weights.h5"
    assert order[1] == "w-04-nan.weights.h5"
    assert [record.epoch for record in Run(str(tmp_path / "run")).checkpoints] == [0, 1, 2, 3]
    assert len(writer.stats.publish_seconds) == 4


def test_it_takes_no_best_ones_place(tmp_path, monkeypatch):
    """With `save_best_only`, a newer one otherwise takes the place of one that waits to be written."""
    made = model()
    with Run(str(tmp_path / "run")).writer(TEMPLATE, save_best_only=True) as writer:
        for epoch, score in enumerate((0.5, 0.4, 0.3)):
            writer.save(made, epoch=epoch, logs={"val_loss": score})
        writer.submit(made, epoch=3, batch=1, urgent=True)
    run = Run(str(tmp_path / "run"))
    assert (run.best.score, run.latest.epoch, run.latest.batch) == (0.3, 3, 1)


def test_state_of_ones_own_travels_with_a_checkpoint(tmp_path):
    """For custom loops: NaN included."""
    with Run(str(tmp_path / "run")).writer("w-{epoch}.weights.h5") as writer:
        writer.save(model(), epoch=0, riders={"loader": {"position": 12, "losses": [float("inf"), 0.5]}})
    found = Run(str(tmp_path / "run")).latest
    assert decode(found.riders) == {"loader": {"position": 12, "losses": [float("inf"), 0.5]}}


def test_no_better_one_takes_its_place_once_it_is_written(tmp_path, monkeypatch):
    """It has no score to be compared, and the machine is about to go."""
    real, gate, began, sealed = LocalStore.upload, threading.Event(), threading.Event(), threading.Semaphore(0)
    seal = Spool.seal

    def slow(self, *args, **options):
        began.set()
        assert gate.wait(HANG)
        return real(self, *args, **options)

    def counted(self, *args, **options):
        entry = seal(self, *args, **options)
        sealed.release()
        return entry

    monkeypatch.setattr(LocalStore, "upload", slow)
    monkeypatch.setattr(Spool, "seal", counted)
    made = model()
    with Run(str(tmp_path / "run")).writer(TEMPLATE, save_best_only=True) as writer:
        writer.save(made, epoch=0, logs={"val_loss": 0.5})
        assert sealed.acquire(timeout=HANG)
        assert began.wait(HANG)  # or the first would wait too, and the third take its place
        writer.submit(made, epoch=1, batch=1, urgent=True)
        assert sealed.acquire(timeout=HANG)
        writer.save(made, epoch=2, logs={"val_loss": 0.25})
        assert sealed.acquire(timeout=HANG)
        gate.set()
    assert [record.epoch for record in Run(str(tmp_path / "run")).checkpoints] == [0, 1, 2]
