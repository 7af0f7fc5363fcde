"""Curves for TensorBoard, read back from the event files."""

import tensorflow as tf
from models import fit, model

from remote_ckpt import RemoteModelCheckpoint
from remote_ckpt.callback.tensorboard import StatsBoard
from remote_ckpt.saving.stats import Stats
from remote_ckpt.stores.base import TransferReport


def read(folder):
    points = {}
    for file in sorted(folder.rglob("events.out.*")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name in ("scalars", "")
                points[value.tag, event.step] = tf.make_ndarray(value.tensor).item()
    return points


def test_each_epoch_is_a_point(tmp_path):
    """Also after a pause, as between two calls of `fit`."""
    board = StatsBoard(tmp_path)
    stats = Stats(stall_seconds=[0.5, 0.25], pending=2, transfer=TransferReport(sent=3_000_000))
    board.write(stats, 0)
    board.close()
    stats.publish_seconds.append(1.5)
    stats.pending = 0
    board.write(stats, 1)
    board.close()
    assert read(tmp_path) == {
        ("remote_ckpt/stall_ms", 0): 250.0,
        ("remote_ckpt/pending", 0): 2.0,
        ("remote_ckpt/sent_mb", 0): 3.0,
        ("remote_ckpt/stall_ms", 1): 250.0,
        ("remote_ckpt/upload_seconds", 1): 1.5,
        ("remote_ckpt/pending", 1): 0.0,
        ("remote_ckpt/sent_mb", 1): 3.0,
    }


def test_nothing_is_created_before_there_is_something_to_say(tmp_path):
    """And closing it twice is harmless."""
    board = StatsBoard(tmp_path / "logs")
    board.close()
    board.close()
    assert not (tmp_path / "logs").exists()


def test_the_callback_writes_a_point_for_each_epoch(tmp_path):
    """Beside the curves that Keras's own callback writes there."""
    url = str(tmp_path / "run" / "{epoch}.weights.h5")
    callback = RemoteModelCheckpoint(url, monitor="loss", tensorboard=tmp_path / "logs")
    fit(model(), [callback], epochs=3)
    points = read(tmp_path / "logs")
    assert [epoch for name, epoch in points if name == "remote_ckpt/stall_ms"] == [0, 1, 2]
    assert all(value > 0 for (name, _), value in points.items() if name == "remote_ckpt/stall_ms")
