"""Freeze the values of many variables at once, differently for each backend, and turn them into arrays later.

TensorFlow's variables are copy-on-write: a tensor read from one shares its buffer, and the next assignment allocates a
new one while the tensor lives. JAX's arrays are donated to the next training step, and torch updates in place: both are
copied, on their device.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Protocol

import numpy as np

from remote_ckpt.errors import SaveFailedError

# Variables read by one operation. TensorFlow prepares an operation at its first use, and the time for this grows faster
# than the number of inputs: 1,202 variables take 150 ms in one operation, 10 ms in nineteen; later reads cost the same
# (measured, TensorFlow 2.21).
_TOGETHER = 64
_value_of = operator.attrgetter("_value")  # the tf.Variable inside; the public property costs ten times as much


class Freezer(Protocol):
    """A freezer of a fixed list of variables, used at each capture. For the training thread."""

    def freeze(self) -> list[Any] | None:
        """Return a frozen value for each variable, or None if this freezer no longer fits the variables."""


def freezer_for(variables: Sequence[Any]) -> Freezer:
    """Make the freezer of the running backend."""
    from keras import backend

    return _FREEZERS[backend.backend()](variables)


def to_numpy(value: Any) -> np.ndarray:
    """Return a frozen value as an array, without a copy where the backend allows. For the worker thread."""
    if isinstance(value, np.ndarray):
        return value
    from keras.src import backend

    if backend.backend() == "torch":
        return np.asarray(backend.convert_to_numpy(value))  # knows bfloat16
    return np.asarray(value)


class _TensorFlowFreezer:
    """Read plain variables in operations of up to `_TOGETHER`: a microsecond for each variable instead of ten."""

    def __init__(self, variables: Sequence[Any]) -> None:
        self._variables = list(variables)
        self._values = list(map(_value_of, variables))
        together, self._alone = _by_device(self._values)
        self._readers = [
            _read_together([self._values[i] for i in positions], device) for device, positions in together.items()
        ]
        order = [*chain.from_iterable(together.values()), *self._alone]
        self._in_order = sorted(range(len(order)), key=order.__getitem__)

    def freeze(self) -> list[Any] | None:
        # Another tf.Variable inside a Keras variable: the prepared operations would still read the earlier one.
        if not all(map(operator.is_, map(_value_of, self._variables), self._values)):
            return None
        frozen = [tensor for read in self._readers for tensor in read()]
        frozen += [_read_alone(self._values[position]) for position in self._alone]
        return list(map(frozen.__getitem__, self._in_order))


def _by_device(values: Iterable[Any]) -> tuple[dict[str, list[int]], list[int]]:
    """Return the positions of plain variables by device, and the positions of variables replicated by a strategy.

    Only the strategy knows how the copies of a replicated variable become one value.
    """
    from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable

    together: dict[str, list[int]] = {}
    alone: list[int] = []
    for position, value in enumerate(values):
        plain = isinstance(value, BaseResourceVariable)
        (together.setdefault(value.device, []) if plain else alone).append(position)
    return together, alone


def _read_together(values: Sequence[Any], device: str) -> Callable[[], list[Any]]:
    """Prepare the reading of many variables of a device; return the function to read them all.

    TensorFlow has an operation for this, `_ReadVariablesOp`, which its own optimizing passes put into graphs.
    """
    import tensorflow as tf
    from tensorflow.python.eager import context, execute

    calls: list[tuple[list[Any], tuple[Any, ...]]] = []
    for start in range(0, len(values), _TOGETHER):
        some = values[start : start + _TOGETHER]
        dtypes = [value.dtype.as_datatype_enum for value in some]
        calls.append(([value.handle for value in some], ("N", len(some), "dtypes", dtypes)))

    def read() -> list[Any]:
        tensors: list[Any] = []
        with tf.device(device):
            for handles, attributes in calls:
                tensors += execute.execute(
                    b"_ReadVariablesOp", len(handles), inputs=handles, attrs=attributes, ctx=context.context()
                )
        return tensors

    return read


def _read_alone(value: Any) -> Any:
    import tensorflow as tf

    return tf.convert_to_tensor(value.read_value())


class _JaxFreezer:
    def __init__(self, variables: Sequence[Any]) -> None:
        self._variables = list(variables)

    def freeze(self) -> list[Any]:
        return [_whole_here(variable).copy() for variable in self._variables]


def _whole_here(variable: Any) -> Any:
    """Return a JAX array readable in this process alone, also where several processes train the same model.

    Raises:
        SaveFailedError: Other processes hold parts of the variable.
    """
    value = variable.value
    if value.is_fully_addressable:
        return value
    if not value.is_fully_replicated:
        raise SaveFailedError(
            f"{variable.path} is spread over several processes, and no one of them can save all of it. Replicate it "
            "(keras.distribution.DataParallel), or keep such models with Orbax."
        )
    return value.addressable_data(0)  # of one device, so that copying it is no collective operation


class _TorchFreezer:
    def __init__(self, variables: Sequence[Any]) -> None:
        self._variables = list(variables)

    def freeze(self) -> list[Any]:
        return [variable.value.detach().clone() for variable in self._variables]


_FREEZERS: dict[str, Callable[[Sequence[Any]], Freezer]] = {
    "tensorflow": _TensorFlowFreezer,
    "jax": _JaxFreezer,
    "torch": _TorchFreezer,
}
