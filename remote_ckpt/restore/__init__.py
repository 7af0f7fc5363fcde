"""Restore a Keras model from a checked local file; account for every array. Keras is imported on first use."""

from __future__ import annotations

from remote_ckpt.restore._kept import put_back
from remote_ckpt.restore._load import load_into
from remote_ckpt.restore._outcome import Source, Taken

__all__ = ["Source", "Taken", "load_into", "put_back"]
