"""What a checkpoint may take of the local disk, whichever way its file comes there."""

from __future__ import annotations

import shutil
import threading

import keras
import pytest

from remote_ckpt.errors import SaveFailedError
from remote_ckpt.run import Run
from remote_ckpt.saving.spool import Spool

NAMES = ["w-{epoch}.weights.h5", "w-{epoch}.keras", "w-{epoch}.h5", "kept by a method of the model's own"]


class Own(keras.Sequential):
    """A model that only Keras itself can save: its file is written on the training thread."""

    def save_weights(self, filepath, overwrite=True):
        super().save_weights(filepath, overwrite=overwrite)


def made(name):
    layers = [keras.Input((64,)), keras.layers.Dense(1000)]
    return Own(layers) if name == NAMES[-1] else keras.Sequential(layers)


def template(name):
    return NAMES[0] if name == NAMES[-1] else name


@pytest.fixture
def disk(monkeypatch, tmp_path):
    """A disk of `disk.size` bytes, which the spool's files take up."""

    class Disk:
        size = 1 << 40

    real, usage = tmp_path / "spool", shutil.disk_usage(tmp_path)

    def disk_usage(_path):
        taken = sum(path.stat().st_size for path in real.rglob("*") if path.is_file())
        return usage._replace(free=Disk.size - taken)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    return Disk


def writer(tmp_path, name, **options):
    run = Run(str(tmp_path / "run"), spool_dir=tmp_path / "spool")
    return run, run.writer(template(name), monitor="score", mode="max", **options)


def size_of(name, tmp_path):
    """Bytes of the model's file."""
    run, saving = writer(tmp_path / "measured", name)
    with saving:
        saving.save(made(name), epoch=0, logs={"score": 0.0})
    return run.latest.size


def left(tmp_path):
    return [path for path in (tmp_path / "spool").rglob("*") if path.suffix in (".h5", ".keras")]


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_gets_half_of_the_free_disk(tmp_path, disk, name):
    """Though its file lies there already when room is made for it."""
    disk.size = int(size_of(name, tmp_path) * 2.1)
    run, saving = writer(tmp_path, name)
    with saving:
        saving.save(made(name), epoch=0, logs={"score": 0.5})
    assert run.latest.epoch == 0


@pytest.mark.parametrize("name", NAMES)
def test_what_takes_more_than_half_is_refused_and_leaves_nothing(tmp_path, disk, name):
    """The message gives both numbers."""
    disk.size = int(size_of(name, tmp_path) * 1.8)
    _, saving = writer(tmp_path, name)
    saving.save(made(name), epoch=0, logs={"score": 0.5})
    with pytest.raises(SaveFailedError, match=r"room for \d+ more bytes .*a checkpoint needs \d+\."):
        saving.flush()
    assert left(tmp_path) == []
    saving.close()


def test_what_waits_to_be_sealed_counts_against_the_limit(tmp_path):
    """A file that the training thread has written is as large as one that is sealed."""
    spool = Spool(Run(str(tmp_path / "run")).location, tmp_path / "spool")
    (spool.scratch() / "remote_ckpt-x").mkdir()
    (spool.scratch() / "remote_ckpt-x" / "model.keras").write_bytes(b"x" * 1000)
    assert spool.used() == 1000
    spool.close()


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_superseded_checkpoint_leaves_no_file(tmp_path, monkeypatch, name):
    """The one that took its place has its own."""
    gate, began, seal = threading.Event(), threading.Event(), Spool.seal

    def waiting_seal(self, *args, **options):
        began.set()
        gate.wait()
        return seal(self, *args, **options)

    monkeypatch.setattr(Spool, "seal", waiting_seal)
    run, saving = writer(tmp_path, name, save_best_only=True)
    with saving:
        try:
            saving.save(made(name), epoch=0, logs={"score": 0.1})
            began.wait()
            for epoch in (1, 2, 3):
                saving.save(made(name), epoch=epoch, logs={"score": 0.1 + epoch})
            assert len(left(tmp_path)) == 2
        finally:
            gate.set()
    assert [record.epoch for record in run.checkpoints] == [0, 3]
    assert left(tmp_path) == []
