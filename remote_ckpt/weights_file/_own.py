"""Our own files always load: what was just written is looked at as its readers will look at it."""

from __future__ import annotations

from pathlib import Path

from remote_ckpt.errors import CorruptCheckpointError, SaveFailedError
from remote_ckpt.weights_file._archive import check_keras_archive
from remote_ckpt.weights_file._check import check


def check_written(path: Path, suffix: str) -> None:
    """Make sure that readers accept a file that was just written; looks at its metadata alone. On the worker.

    Args:
        path: The file.
        suffix: ".weights.h5", ".h5" or ".keras", whatever the file is called as yet.

    Raises:
        SaveFailedError: A reader would refuse it; the message says why.
    """
    try:
        (check_keras_archive if suffix == ".keras" else check)(path)
    except CorruptCheckpointError as exc:
        raise SaveFailedError(
            f"This model cannot be kept as '*{suffix}', as no reader would load the file: {exc}. Split the model, or "
            "save it in another format."
        ) from exc
