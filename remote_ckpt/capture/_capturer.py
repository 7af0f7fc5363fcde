"""Take snapshots of a model: by reference if Keras is as expected, else through `save_weights`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from remote_ckpt.capture._apart import apart
from remote_ckpt.capture._snapshot import FileSnapshot, Snapshot
from remote_ckpt.errors import SaveFailedError
from remote_ckpt.weights_file import TemplateWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from remote_ckpt.capture._plan import CapturePlan

_log = logging.getLogger("remote_ckpt")


class Capturer:
    """Take snapshots of a model, and keep the result of Keras's walk between saves. For the training thread.

    The first capture lets Keras walk the model, as each `save_weights` does. Later captures only take references, until
    the structure of the model changes (`_watch` lists the changes that are detected): then Keras walks once more.
    Layers that write more than variables, or by a method that is not Keras's, are asked again at each capture.

    Attributes:
        fallback_reason: Why this model cannot be captured by reference, or None. Each capture is then a blocking
            `save_weights`: as correct, and as slow.
    """

    def __init__(self, model: Any, scratch: Callable[[], Path] | None = None) -> None:
        """Decide how to capture the model; nothing is captured yet.

        Args:
            model: A Keras model.
            scratch: Returns the folder for files that Keras writes by itself, on the filesystem where snapshots will be
                written; by default the system's temporary folder.
        """
        self._model = model
        self._scratch = scratch
        self._plan: CapturePlan | None = None
        self._writer = TemplateWriter()
        self.fallback_reason: str | None = _reason_to_leave_it_to_keras(model)
        if self.fallback_reason is not None:
            self._warn()

    def capture(self) -> Snapshot:
        """Freeze the state of the model, as `model.save_weights` would write it now.

        Call this on the thread that trains the model, outside any replica scope of a distribution. Training may go on
        as soon as the call returns. After an error nothing is held and the model is unchanged.

        Raises:
            SaveFailedError: The weights are spread over several processes.
            Exception: Whatever `model.save_weights` raises for this model.
        """
        _attach_state(self._model)
        if self.fallback_reason is not None:
            return self._save_now()
        try:
            with apart():
                return self._by_reference()
        except SaveFailedError:  # weights spread over several processes: Keras cannot save them either
            raise
        except Exception as exc:  # noqa: BLE001 - any surprise in Keras's private parts means: leave it to Keras
            self._plan = None
            snapshot = self._save_now()  # raises if the fault is the model's, not that of the capture
            self.fallback_reason = f"{type(exc).__name__}: {exc}"
            self._warn()
            return snapshot

    def _by_reference(self) -> Snapshot:
        from remote_ckpt.capture._plan import CapturePlan

        snapshot = None if self._plan is None else self._plan.snapshot(self._writer)
        if snapshot is None:
            self._plan = CapturePlan(self._model)
            snapshot = self._plan.snapshot(self._writer)
            assert snapshot is not None
        return snapshot

    def _save_now(self) -> Snapshot:
        return FileSnapshot(self._model.save_weights, self._scratch and self._scratch(), ".weights.h5")

    def _warn(self) -> None:
        _log.warning(
            "Model %r cannot be captured by reference (%s): each checkpoint stops training for as long as "
            "model.save_weights takes.",
            self._model.name,
            self.fallback_reason,
        )


def _reason_to_leave_it_to_keras(model: Any) -> str | None:
    method = getattr(type(model), "save_weights", None)
    if "save_weights" in vars(model) or not getattr(method, "__module__", "").startswith("keras."):
        return f"{type(model).__name__}.save_weights is not Keras's own"
    return None


def _attach_state(model: Any) -> None:
    """Write the state of JAX's trainer, kept outside the model during an epoch, back into the model, as Keras does."""
    synchronise = getattr(model, "jax_state_sync", None)
    if synchronise is not None:
        synchronise()
