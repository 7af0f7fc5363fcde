"""Keep the best Keras checkpoint in a bucket, without stopping training, without losing a checkpoint.

Importing this package imports neither Keras nor a cloud's library. They are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from remote_ckpt.errors import (
    ArchitectureError,
    CorruptCheckpointError,
    DrainError,
    ManifestError,
    NoCheckpointError,
    RemoteCkptError,
    SignatureError,
    StoreError,
)
from remote_ckpt.logs import make_sturdy

if TYPE_CHECKING:
    from remote_ckpt.callback import RemoteModelCheckpoint
    from remote_ckpt.preemption import PreemptionGuard
    from remote_ckpt.records import Checkpoint
    from remote_ckpt.run import Run, load_best, load_latest
    from remote_ckpt.run.discovery import FoundRun, find_runs
    from remote_ckpt.stores import Transfer

make_sturdy("remote_ckpt")

_LAZY = {
    "Checkpoint": "records",
    "FoundRun": "run.discovery",
    "PreemptionGuard": "preemption",
    "RemoteModelCheckpoint": "callback",
    "Run": "run",
    "Transfer": "stores",
    "find_runs": "run.discovery",
    "load_best": "run",
    "load_latest": "run",
}

__all__ = [
    "ArchitectureError",
    "Checkpoint",
    "CorruptCheckpointError",
    "DrainError",
    "FoundRun",
    "ManifestError",
    "NoCheckpointError",
    "PreemptionGuard",
    "RemoteCkptError",
    "RemoteModelCheckpoint",
    "Run",
    "SignatureError",
    "StoreError",
    "Transfer",
    "find_runs",
    "load_best",
    "load_latest",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
