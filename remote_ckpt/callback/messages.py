"""Keras's decisions about the monitored metric, and the messages of Keras's callback."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from remote_ckpt.callback.compiled_metrics import compiled_direction
from remote_ckpt.policy import Mode, infer_mode, scalar
from remote_ckpt.saving.writer import Writer


def direction(mode: str, monitor: str, model: Any) -> Mode:
    """Return the metric's direction: `mode` if "min" or "max", else by the compiled metric, else by the name.

    Raises:
        DirectionError: None of these decides.
    """
    if mode == "min":
        return "min"
    if mode == "max":
        return "max"
    return infer_mode(monitor, compiled_direction(model, monitor.removeprefix("val_")))


def judge(writer: Writer, monitor: str, epoch: int, logs: Mapping[str, Any], name: str) -> tuple[bool, str | None]:
    """Return whether to save the model under `save_best_only`, and Keras's message about the decision.

    Args:
        writer: Has the score to beat.
        monitor: The metric.
        epoch: 0-based.
        logs: The metrics. If `monitor` is missing or no number, the model is saved, with a warning, as Keras does.
        name: The place where the model would be saved, for the message.
    """
    current = logs.get(monitor)
    score = scalar(current)
    if current is None:
        known = ", ".join(sorted(map(str, logs))) or "none"
        warnings.warn(
            f"Can save best model only with {monitor} available. The metrics there are: {known}. Saving every time.",
            stacklevel=4,
        )
        return True, None
    if score is None:
        warnings.warn(
            f"Can save best model only when `monitor` is a scalar value. Received: {_shown(current)}. "
            "Falling back to `save_best_only=False`.",
            stacklevel=4,
        )
        return True, None
    best = writer.best
    shown = "None" if best is None else f"{best:.5f}"
    if not writer.improves(score):
        return False, f"Epoch {epoch + 1}: {monitor} did not improve from {shown}"
    return True, f"Epoch {epoch + 1}: {monitor} improved from {shown} to {score:.5f}, saving model to {name}"


def _shown(value: Any) -> str:
    """Return a value as short text; Python refuses to write out integers of thousands of digits."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - whatever the value's own class raises
        return type(value).__name__
    return text if len(text) <= 80 else f"{text[:80]}… ({type(value).__name__})"
