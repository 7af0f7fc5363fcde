"""`.weights.h5` files: written over a template, and checked before anyone loads them. Uses h5py, not Keras."""

from __future__ import annotations

from remote_ckpt.weights_file._archive import check_keras_archive, open_weights
from remote_ckpt.weights_file._check import check
from remote_ckpt.weights_file._own import check_written
from remote_ckpt.weights_file._template import Dataset, FileTemplate, Layout, TemplateWriter

__all__ = [
    "Dataset",
    "FileTemplate",
    "Layout",
    "TemplateWriter",
    "check",
    "check_keras_archive",
    "check_written",
    "open_weights",
]
