"""Curves of the cost of saving, beside the losses in TensorBoard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from remote_ckpt.saving.stats import Stats


class StatsBoard:
    """An event file with a writer's counters. Single-threaded; needs TensorFlow, but not `tensorboard`."""

    def __init__(self, folder: str | os.PathLike[str]):
        """Set the folder; nothing is created before the first `write`.

        Args:
            folder: TensorBoard's `log_dir` or a folder below it; event files go into its subfolder `remote_ckpt`.
        """
        self._folder = Path(folder).expanduser() / "remote_ckpt"
        self._writer: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_writer": None}

    def write(self, stats: Stats, epoch: int) -> None:
        """Add a point to each curve; takes about a millisecond.

        Args:
            stats: The counters. Curves: `remote_ckpt/stall_ms` (of the last save), `…/upload_seconds` (of the last
                checkpoint that reached the bucket), `…/pending`, `…/sent_mb` (so far).
            epoch: 0-based.
        """
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(os.fspath(self._folder))
        kind = tf.compat.v1.SummaryMetadata(plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"))
        with self._writer.as_default(step=epoch):
            for name, value in _points(stats).items():
                # As `tf.summary.scalar`, which does not exist without the package `tensorboard`.
                tf.summary.write(f"remote_ckpt/{name}", tf.constant(value, tf.float32), metadata=kind)

    def close(self) -> None:
        """Write out all points and close the file; a later `write` begins another file. Idempotent."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def _points(stats: Stats) -> dict[str, float]:
    points = {"pending": float(stats.pending), "sent_mb": stats.bytes_sent / 1e6}
    if stats.stall_seconds:
        points["stall_ms"] = stats.stall_seconds[-1] * 1e3
    if stats.publish_seconds:
        points["upload_seconds"] = stats.publish_seconds[-1]
    return points
