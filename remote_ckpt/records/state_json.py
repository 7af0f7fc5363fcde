"""Callback state as plain JSON values, small enough for a record and safe to read from an untrusted manifest.

JSON has neither NaN nor infinities, but scores may be NaN or infinite. Such a float is written as `{"$float": "nan"}`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

MAX_BYTES = 2 << 20
"""Most bytes of JSON for all riders of a record together. A `History` of 10,000 epochs with five metrics takes half."""

_MAX_DEPTH = 20
_FLOAT = "$float"


def encode(value: Any, where: str = "state") -> Any:
    """Return `value` as JSON values: scalars of NumPy become Python numbers, tuples become lists.

    Args:
        value: None, numbers, text, and lists and dicts of them.
        where: The name of the value in messages.

    Raises:
        ValueError: The value holds something else, or is nested too deeply; the message names the place.
    """
    return _encode(value, where, _MAX_DEPTH)


def decode(value: Any) -> Any:
    """Return the original value from the result of `encode`; a tuple comes back as a list.

    Raises:
        ValueError: `value` was not made by `encode`: a text under `$float` is not a number.
        TypeError: Likewise; there is neither text nor number under `$float`.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _FLOAT in value:
        return float(value[_FLOAT])
    return {name: decode(item) for name, item in value.items()}


def check_size(states: Mapping[str, Any]) -> None:
    """Refuse states too large for a record.

    Raises:
        ValueError: The states take more than `MAX_BYTES`, are nested too deeply, or hold NaN or an infinity.
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
