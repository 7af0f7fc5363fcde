"""Checks of files just written by this package, by the rules of the readers."""

from __future__ import annotations

from pathlib import Path

from remote_ckpt.errors import CorruptCheckpointError, SaveFailedError
from remote_ckpt.weights_file._archive import check_keras_archive
from remote_ckpt.weights_file._check import check


def check_written(path: Path, suffix: str) -> None:
    """Check a file just written as a reader will. Runs on the worker thread.

    Reads as much as `check` and `check_keras_archive` do: mostly the metadata.

    Args:
        path: The file; it may still have a temporary name.
        suffix: The suffix of the final name: ".weights.h5", ".h5" or ".keras".

    Raises:
        SaveFailedError: A reader would refuse the file; the message gives the reason.
        OSError: The file cannot be read.
    """
    try:
        (check_keras_archive if suffix == ".keras" else check)(path)
    except CorruptCheckpointError as exc:
        raise SaveFailedError(
            f"This model cannot be kept as '*{suffix}', as no reader would load the file: {exc}. Split the model, or "
            "save it in another format."
        ) from exc
