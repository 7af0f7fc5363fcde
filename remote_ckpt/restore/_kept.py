"""Put back a model's values when a restore fails; and find the scope for assignments to variables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from remote_ckpt.capture import freezer_for


@contextlib.contextmanager
def put_back_on_failure(variables: Sequence[Any]) -> Iterator[None]:
    """Assign the present values to the variables again if the block raises; the error goes on.

    On TensorFlow the old values share their memory with the variables until the variables are assigned. On JAX the old
    values are never copied. torch copies them on their device.
    """
    values = _values(variables)
    try:
        yield
    except BaseException:  # Ctrl-C too: no model may be left with half of a checkpoint
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        raise


@contextlib.contextmanager
def put_back(model: Any) -> Iterator[None]:
    """Assign the present values to the model's variables again after the block, with or without an error."""
    with own_scope(model):
        variables = model.variables
        values = _values(variables)
        try:
            yield
        finally:
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)


def own_scope(model: Any) -> AbstractContextManager[Any]:
    """Return the scope of the model's distribution strategy: TensorFlow assigns variables only inside this scope."""
    strategy = getattr(model, "_distribute_strategy", None)
    return strategy.scope() if strategy is not None else contextlib.nullcontext()


def _values(variables: Sequence[Any]) -> list[Any]:
    from keras import backend

    if backend.backend() == "jax":
        # JAX arrays are immutable; only a training step donates their memory.
        return [variable.value for variable in variables]
    return freezer_for(variables).freeze() or []
