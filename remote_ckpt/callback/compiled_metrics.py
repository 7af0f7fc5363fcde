"""Find the declared direction (`_direction`) of a compiled metric, by the metric's name in the logs.

Keras reads `_direction` too, after the first epoch. Before the first batch TensorFlow has not built the compiled
metrics; then their names are derived from the arguments of `compile`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import keras


def compiled_direction(model: Any, logged: str) -> str | None:
    """Return `"up"` or `"down"` for the metric logged as `logged`, or None if no metric decides.

    `logged` is the name without `val_`. With several outputs, the name of the output stands before the metric's;
    weighted metrics and equal names are marked (`weighted_auc`, `auc_1`). Metrics with exactly this name go first. If
    several metrics match equally well and their directions differ, none decides.
    """
    outputs = "|".join(map(re.escape, sorted(_outputs(model)))) or r"(?!)"
    exact: set[str] = set()
    near: set[str] = set()
    for name, own in _metrics(model):
        if own not in ("up", "down"):
            continue
        if name == logged:
            exact.add(own)
        elif re.fullmatch(rf"(?:(?:{outputs})_)?(?:weighted_)?{re.escape(name)}(?:_\d+)?", logged):
            near.add(own)
    found = exact or near
    return found.pop() if len(found) == 1 else None


def _compiled(model: Any) -> Any:
    return getattr(model, "_compile_metrics", None)


def _outputs(model: Any) -> set[str]:
    compiled = _compiled(model)
    names = set(getattr(model, "output_names", None) or ()) | set(getattr(compiled, "output_names", None) or ())
    for given in _given(compiled):
        names |= set(given) if isinstance(given, dict) else set()
    return {name for name in names if isinstance(name, str)}


def _given(compiled: Any) -> list[Any]:
    """Return the arguments of `compile`."""
    return [getattr(compiled, name, None) for name in ("_user_metrics", "_user_weighted_metrics")]


def _metrics(model: Any) -> Iterator[tuple[str, str | None]]:
    """Yield the name and the direction of each metric of a model, built or not."""
    compiled = _compiled(model)
    for metric in getattr(model, "metrics", None) or ():
        for one in getattr(metric, "metrics", None) or [metric]:
            yield str(one.name), getattr(one, "_direction", None)
    if compiled is not None and not compiled.built:
        for one in keras.tree.flatten(_given(compiled)):
            yield from _of_identifier(one)


def _of_identifier(given: Any) -> Iterator[tuple[str, str | None]]:
    """Yield the name and the direction of the metric made by Keras from an argument of `compile`."""
    if given is None or str(given).lower() in ("acc", "accuracy"):  # the name alone is enough
        return
    try:
        metric = keras.metrics.get(given)
        if not isinstance(metric, keras.metrics.Metric):
            metric = keras.metrics.MeanMetricWrapper(metric)
    except Exception:  # noqa: BLE001 - of the user's own code; Keras will raise it, and say more
        return
    name = given if isinstance(given, str) else getattr(given, "name", None) or getattr(given, "__name__", metric.name)
    yield str(name), getattr(metric, "_direction", None)
