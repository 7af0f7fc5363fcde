"""Put a model back as it was when a restore fails; and the scope in which its variables may be assigned."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from remote_ckpt.capture import freezer_for


@contextlib.contextmanager
def put_back_on_failure(variables: Sequence[Any]) -> Iterator[None]:
    """Give the variables their present values again if the block fails.

    On TensorFlow the old values share their memory with the variables until those are assigned; on JAX they are never
    copied; torch copies them on their device.
    """
    values = _values(variables)
    try:
        yield
    except BaseException:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        raise


@contextlib.contextmanager
def put_back(model: Any) -> Iterator[None]:
    """Give the model's variables, whatever the block does to them, their present values again."""
    with own_scope(model):
        variables = model.variables
        values = _values(variables)
        try:
            yield
        finally:
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)


def own_scope(model: Any) -> AbstractContextManager[Any]:
    """Return the scope of the strategy that the model was made under; TensorFlow assigns its variables nowhere else."""
    strategy = getattr(model, "_distribute_strategy", None)
    return strategy.scope() if strategy is not None else contextlib.nullcontext()


def _values(variables: Sequence[Any]) -> list[Any]:
    from keras import backend

    if backend.backend() == "jax":
        return [variable.value for variable in variables]  # immutable, and given away by training steps alone
    return freezer_for(variables).freeze() or []
