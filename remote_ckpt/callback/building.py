"""Build a model before `resume=` restores it: TensorFlow's `fit` builds at the first batch, after callbacks began."""

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
    """Create the variables of a model that is not built, from the kind of data that the running `fit` was given.

    Call it from `on_train_begin`. No batch is taken. It builds as Keras's own JAX and torch trainers do before they
    call callbacks: by calling the model on symbolic inputs. A model that is built is left alone.

    Raises:
        ArchitectureError: The model cannot be built so, and so nothing could ever be restored into it.
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
    """Return what an error complains of, without Keras's colours and its list of arguments."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text.partition("Arguments received")[0])
    return " ".join(plain.split())[:300]


def _symbol(spec: Any) -> Any:
    return keras.KerasTensor(tuple(spec.shape), keras.backend.standardize_dtype(spec.dtype))


def _specs(model: Any) -> Any:
    """Return the shapes and dtypes of one batch of the `fit` that is running, or None.

    Keras hands callbacks no data. Its `fit` has the batches in a variable of this name (3.10 to 3.15), and is one of
    the functions that led here.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == _FIT and frame.f_locals.get("self") is model:
            dataset = getattr(frame.f_locals.get(_BATCHES), "_distributed_dataset", None)
            return getattr(dataset, "element_spec", None)
        frame = frame.f_back
    return None
