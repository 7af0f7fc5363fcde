"""A verified local file into a Keras model, optimizer included: all that `run` knows of Keras."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

from remote_ckpt.errors import CorruptCheckpointError
from remote_ckpt.weights_file import check, check_keras_archive

_DAMAGED = (OSError, UnicodeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What h5py, zipfile and Keras raise for damage that only reading finds; a ValueError is about the architecture."""


def load_into(model: Any, path: Path, source: str) -> None:
    """Load a checkpoint's file into `model`, and its optimizer's state if the model is compiled.

    The file's digest has been verified by the caller; here its structure is checked before Keras sees it.

    Args:
        model: A Keras model of the architecture that was saved; built.
        path: The local file; `.weights.h5`, `.keras` or `.h5`.
        source: The object's URL, for messages.

    Raises:
        CorruptCheckpointError: The file is not safe to load.
        ValueError: The model has another architecture; it may be partly loaded.
    """
    if path.name.endswith(".keras"):
        check_keras_archive(path)
    else:
        check(path)
    build_optimizer(model)
    try:
        model.load_weights(str(path))
    except _DAMAGED as exc:
        raise CorruptCheckpointError(f"{source} cannot be read as a Keras file: {exc}") from exc


def build_optimizer(model: Any) -> None:
    """Create the optimizer's variables: Keras restores only what exists, and says nothing of the rest."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built and model.trainable_variables:
        optimizer.build(model.trainable_variables)
