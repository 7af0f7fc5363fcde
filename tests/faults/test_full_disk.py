"""A disk that is full: training goes on, the user is told, the bucket is untouched."""

from __future__ import annotations

import os
import subprocess

import pytest
from models import Scores, fit, model

from remote_ckpt import RemoteModelCheckpoint, Run
from remote_ckpt.saving.spool import Spool


@pytest.fixture
def tiny_disk(tmp_path):
    """A real filesystem of 300 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"cannot mount a small filesystem: {done.stderr!r}")
        pytest.skip("mounting a small filesystem needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("foreseen", [True, False])
def test_training_goes_on_when_the_spool_has_no_room(tiny_disk, tmp_path, caplog, monkeypatch, foreseen):
    """Foreseen by its size, or met in the middle of the file."""
    if not foreseen:
        monkeypatch.setattr(Spool, "room", lambda self: 1 << 40)
    url = str(tmp_path / "run/w-{epoch}.weights.h5")
    callback = RemoteModelCheckpoint(url, monitor="val_score", mode="max", save_best_only=True, spool_dir=tiny_disk)
    history = fit(model(units=20_000), [Scores(0.1, 0.2), callback], epochs=2)
    assert history.epoch == [0, 1]
    assert "could not be written to the local disk" in caplog.text
    assert ("has room for" if foreseen else "is full") in caplog.text
    assert callback.stats.failures == 2
    assert callback.best is None
    assert Run(str(tmp_path / "run")).checkpoints == []
    assert not list(tiny_disk.rglob("*.h5*"))


def test_a_small_checkpoint_is_saved_on_the_same_disk(tiny_disk, tmp_path):
    """The disk itself is fine."""
    url = str(tmp_path / "run/w-{epoch}.weights.h5")
    fit(model(), [RemoteModelCheckpoint(url, spool_dir=tiny_disk)], epochs=1)
    assert len(Run(str(tmp_path / "run")).checkpoints) == 1
