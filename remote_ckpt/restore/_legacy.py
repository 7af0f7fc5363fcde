"""Restore from whole models as HDF5 (`.h5`): layers by their order, variables by their position in the layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from keras.src.legacy.saving import legacy_h5_format as legacy

from remote_ckpt.capture.optimizers import class_of, describe
from remote_ckpt.restore._assets import load_assets
from remote_ckpt.restore._held import Spec
from remote_ckpt.restore._judge import Account, refuse
from remote_ckpt.restore._kept import put_back_on_failure
from remote_ckpt.restore._outcome import Source, Taken, reading

_TOP = "top_level_model_weights"


class _Layer(NamedTuple):
    """A layer of the file: the name when saved, and the arrays."""

    name: str
    arrays: list[h5py.Dataset]


def load_legacy(model: Any, path: Path, source: Source, *, strict: bool, optimizer: bool) -> Taken:
    """Load a whole model's HDF5 file; arguments and errors as for `load_into`."""
    with h5py.File(path, "r") as file:
        with reading(source):
            theirs = _layers(file.get("model_weights", file))
        pairs, account = _match(model, theirs, strict=strict)
        if (strict and not account.whole) or not account.taken:
            raise refuse(account, model, source)
        taken = Taken([v.path for v in account.taken], account.spare, [v.path for v in account.missing])
        if optimizer and (slots := _slots(model, file, source, taken.problems)):
            pairs += slots
        with put_back_on_failure([variable for variable, _ in pairs]):
            for variable, dataset in pairs:
                variable.assign(np.asarray(dataset))
            for layer in model.layers:  # as Keras's own `legacy_h5_format` does after it has assigned a layer
                if hasattr(layer, "finalize_state") and layer.variables:
                    layer.finalize_state()
    taken.problems += load_assets(model, path)
    return taken


def _match(model: Any, theirs: list[_Layer], *, strict: bool) -> tuple[list[tuple[Any, h5py.Dataset]], Account]:
    mine = [(layer.name, legacy._legacy_weights(layer)) for layer in model.layers]
    own = [*model._trainable_variables, *model._non_trainable_variables]
    mine = [(name, variables) for name, variables in [*mine, (_TOP, own)] if variables]
    pairs: list[tuple[Any, h5py.Dataset]] = []
    spare: list[str] = []
    first: str | None = None
    for layer, variables, name in _beside(theirs, mine):
        problem = _difference(layer.arrays, variables, cast=not strict)
        if problem is None:
            pairs += zip(variables, layer.arrays, strict=True)
            continue
        spare += [array.name for array in layer.arrays]
        first = first or f"layer '{name or layer.name}': {problem}"
    covered = {id(variable) for variable, _ in pairs}
    missing = [variable for variable in model.weights if id(variable) not in covered]
    if missing and first is None:
        first = f"'{missing[0].path}'"
    arrays = sum(len(layer.arrays) for layer in theirs)
    unbuilt = not all(layer.built for layer in model.layers)
    return pairs, Account([v for v, _ in pairs], spare, missing, first, unbuilt, arrays)


def _layers(group: h5py.Group) -> list[_Layer]:
    """Return the file's layers with arrays, in the order of the saved model."""
    names = [*legacy.load_attributes_from_hdf5_group(group, "layer_names"), *([_TOP] if _TOP in group else [])]
    found = []
    for name in names:
        arrays = [group[name][each] for each in legacy.load_attributes_from_hdf5_group(group[name], "weight_names")]
        if arrays:
            found.append(_Layer(name, arrays))
    return found


def _beside(theirs: list[_Layer], mine: list[tuple[str, list[Any]]]) -> list[tuple[_Layer, list[Any], str]]:
    """Put the layers of the file beside the model's: by order where there are as many, else by name."""
    if len(theirs) == len(mine):
        return [(layer, variables, name) for layer, (name, variables) in zip(theirs, mine, strict=True)]
    named = dict(mine)
    return [(layer, named.get(layer.name, []), layer.name if layer.name in named else "") for layer in theirs]


def _difference(arrays: list[h5py.Dataset], variables: list[Any], *, cast: bool) -> str | None:
    if len(arrays) != len(variables):
        return f"{len(variables)} variables in the model, {len(arrays)} in the checkpoint"
    for array, variable in zip(arrays, variables, strict=True):
        mine, its = Spec.of(variable), Spec.of(array)
        if not its.fits(mine, cast=cast):
            return f"'{variable.name}' is {mine} in the model, {its} in the checkpoint"
    return None


def _slots(model: Any, file: h5py.File, source: Source, problems: list[str]) -> list[tuple[Any, h5py.Dataset]] | None:
    """Return the optimizer's variables beside the file's; a reason is added to `problems` where they do not fit."""
    optimizer = getattr(model, "optimizer", None)
    if "optimizer_weights" not in file:
        if optimizer is not None:
            problems.append("optimizer: the checkpoint has no state of it")
        return None
    if optimizer is None:
        problems.append("optimizer: the model has none; compile it before loading")
        return None
    with reading(source):
        group = file["optimizer_weights"]
        arrays = [group[name] for name in legacy.load_attributes_from_hdf5_group(group, "weight_names")]
    saved = source.optimizers.get("optimizer", "")
    before = saved.partition(":")[0] or _class_in(file)
    reason: str | None
    if before and before != class_of(optimizer):
        reason = f"the checkpoint has the state of {before}"
    else:
        if not optimizer.built and len(arrays) > len(optimizer.variables):
            optimizer.build(model.trainable_variables)
        reason = _difference(arrays, optimizer.variables, cast=False)
        if reason is None and optimizer.built and saved and describe(model, optimizer) not in ("", saved):
            reason = "it was saved for other variables than it trains now (layers were frozen or unfrozen)"
    if reason is None:
        return list(zip(optimizer.variables, arrays, strict=True))
    problems.append(f"optimizer ({class_of(optimizer)}): {reason}")
    return None


def _class_in(file: h5py.File) -> str:
    """Return the optimizer's class from the file's training configuration; empty without such a configuration."""
    try:
        config = json.loads(file.attrs["training_config"])["optimizer_config"]
        inner = config["config"].get("inner_optimizer")
        name = str(config["class_name"]).rpartition(">")[2]
        return f"{name}({inner['class_name']})" if inner else name
    except (KeyError, TypeError, ValueError, AttributeError):  # no attribute, no JSON, or JSON of another structure
        return ""
