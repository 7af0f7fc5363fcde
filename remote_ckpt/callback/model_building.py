"""Build a model before `resume=` restores weights: TensorFlow's `fit` builds only at the first batch."""

from __future__ import annotations

import re
import sys
from types import FrameType
from typing import Any

import keras
from keras.src import backend, tree

from remote_ckpt.errors import ArchitectureError

_FIT = "fit"
_BATCHES = "epoch_iterator"


def build_from_batches(model: Any, url: str) -> None:
    """Create the variables of an unbuilt model, from the shapes and dtypes of the running `fit`'s data.

    Call this function from `on_train_begin`: TensorFlow's `fit` calls the callbacks before it builds. No batch is
    consumed. The model is called on symbolic inputs, as Keras's own JAX and torch trainers do before they call
    callbacks. A built model is left as it is.

    Raises:
        ArchitectureError: The model cannot be built in this way, so nothing could be restored into it.
    """
    if model.built and all(layer.built for layer in model._flatten_layers()):
        return
    problem: str
    specs = _specs(model)
    if specs is None:
        if model.built:  # a custom loop: the restore itself accounts for every weight
            return
        problem = "there is no fit whose data it could be built from"
    else:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(specs)
        try:
            backend.compute_output_spec(model, tree.map_structure(_symbol, x), training=True)
        except Exception as exc:  # noqa: BLE001 - the user's own call, with whatever it raises for symbolic inputs
            problem = f"{type(exc).__name__}: {_short(str(exc))}"
        else:
            if model.built:
                return
            problem = "it is not built after it was called"
    raise ArchitectureError(
        f"The model '{model.name}' is not built, and could not be built from the first batch ({problem}). So "
        f"nothing could be restored into it from {url}. Call the model once on a batch of data before fit, or begin it "
        "with an Input."
    )


def _short(text: str) -> str:
    """Return an error's message on a single line, without Keras's colours and list of arguments."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text.partition("Arguments received")[0])
    return " ".join(plain.split())[:300]


def _symbol(spec: Any) -> Any:
    return keras.KerasTensor(tuple(spec.shape), keras.backend.standardize_dtype(spec.dtype))


def _specs(model: Any) -> Any:
    """Return the shapes and dtypes of a batch of the running `fit`, or None.

    Keras passes no data to callbacks. Its `fit` keeps the batches in a local variable, `epoch_iterator` (Keras 3.10 to
    3.15). `fit` is among the callers of this function, so the stack is searched for it.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == _FIT and frame.f_locals.get("self") is model:
            dataset = getattr(frame.f_locals.get(_BATCHES), "_distributed_dataset", None)
            return getattr(dataset, "element_spec", None)
        frame = frame.f_back
    return None
