"""Model -> Snapshot: references, copy-on-write. Keras and its backend are imported on first use, never before."""

from __future__ import annotations

from remote_ckpt.capture._capturer import Capturer
from remote_ckpt.capture._snapshot import Snapshot, WholeModelSnapshot

__all__ = ["Capturer", "Snapshot", "WholeModelSnapshot"]
