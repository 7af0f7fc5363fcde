"""Capture: snapshots of a model, by reference. Keras and the backend are imported on first use, never before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from remote_ckpt.capture._capturer import Capturer
from remote_ckpt.capture._freeze import freezer_for
from remote_ckpt.capture._snapshot import Snapshot, WholeModelSnapshot

if TYPE_CHECKING:
    from remote_ckpt.capture._walk import skipping_by_heart, written_by

__all__ = ["Capturer", "Snapshot", "WholeModelSnapshot", "freezer_for", "skipping_by_heart", "written_by"]


def __getattr__(name: str) -> Any:
    if name not in ("skipping_by_heart", "written_by"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from remote_ckpt.capture import _walk

    return getattr(_walk, name)
