"""State as plain JSON values: what may travel in a record, and in a manifest that anybody may have written.

JSON has neither NaN nor infinities, and scores have all three: they are written as `{"$float": "nan"}`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

MAX_BYTES = 2 << 20
"""Of JSON, all riders of one record together; a `History` of 10,000 epochs with five metrics takes half of it."""

_MAX_DEPTH = 20
_FLOAT = "$float"


def encode(value: Any, where: str = "state") -> Any:
    """Return `value` as JSON knows it; scalars of NumPy become Python's, tuples become lists.

    Args:
        value: None, numbers, text, and lists and dicts of them.
        where: Names the value in messages.

    Raises:
        ValueError: It holds something else, or is nested too deeply; the message says where.
    """
    return _encode(value, where, _MAX_DEPTH)


def decode(value: Any) -> Any:
    """Return what `encode` was given.

    Raises:
        ValueError: `encode` did not make it.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _FLOAT in value:
        return float(value[_FLOAT])
    return {name: decode(item) for name, item in value.items()}


def check_size(states: Mapping[str, Any]) -> None:
    """Let pass what is small enough to travel in a record.

    Raises:
        ValueError: It takes more than `MAX_BYTES`, is nested too deeply, or holds a float that JSON does not know.
    """
    if not _is_shallow(states, _MAX_DEPTH):
        raise ValueError("the state of the riders is nested too deeply")
    size = len(json.dumps(states, allow_nan=False))
    if size > MAX_BYTES:
        raise ValueError(f"the state of the riders takes {size} bytes, and a record has room for {MAX_BYTES}")


def _is_shallow(value: Any, depth: int) -> bool:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return depth >= 0 and all(_is_shallow(item, depth - 1) for item in inner)


def _encode(value: Any, where: str, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_FLOAT: str(float(value))}
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return _encode(value.item(), where, depth)
    if depth == 0:
        raise ValueError(f"{where} is nested more than {_MAX_DEPTH} levels deep.")
    if isinstance(value, list | tuple):
        return [_encode(item, f"{where}[{index}]", depth - 1) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        wrong = next((name for name in value if not isinstance(name, str) or name.startswith("$")), None)
        if wrong is not None:
            raise ValueError(f"{where} has the key {wrong!r}: keys are text that does not begin with '$'.")
        return {name: _encode(item, f"{where}[{name!r}]", depth - 1) for name, item in value.items()}
    raise ValueError(
        f"{where} is a {type(value).__name__}, which does not travel: only None, numbers, text, lists and dicts do."
    )
