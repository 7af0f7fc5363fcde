"""Load a checked local file into a Keras model: account, assign, and put all values back after an error."""

from __future__ import annotations

import logging
import zipfile
import zlib
from pathlib import Path
from typing import Any

from remote_ckpt.errors import ArchitectureError, CorruptCheckpointError
from remote_ckpt.restore._outcome import Source, Taken, reading
from remote_ckpt.weights_file import check, check_keras_archive, open_weights

log = logging.getLogger("remote_ckpt")

DAMAGED = (OSError, UnicodeError, EOFError, zipfile.BadZipFile, zlib.error)
"""Errors of h5py and zipfile for damage that `check` does not find and reading does."""


def load_into(model: Any, path: Path, source: Source | str, *, strict: bool = True, optimizer: bool = True) -> Taken:
    """Load a checkpoint's file into `model`, and the state of the optimizers that the model holds.

    The caller has verified the file's digest; here the file's structure is checked before Keras reads the file. Every
    array of the file is compared with the variable that Keras would read the array into, and every weight of the model
    with the file, before anything is assigned. After an error the model's variables are as they were, except after an
    error while vocabularies are unpacked (a full temporary folder): unpacking comes last, and the restored weights stay
    in the model. An optimizer may have been built.

    A model with a `load_weights` of its own loads the file by that method; `strict` and `optimizer` then have no
    effect, and after an error the optimizer's variables are not put back.

    For the training thread, see `_walk.walk`.

    Args:
        model: A Keras model of the architecture that was saved; built.
        path: The local file; `.weights.h5`, `.keras` or `.h5`.
        source: The checkpoint, for messages and for its record's descriptions of the optimizers; or its URL.
        strict: Refuse a model that lacks weights which the file has, or has weights which the file lacks. Otherwise
            load the layers that fit.
        optimizer: Restore the optimizers too. The state of an optimizer is restored as a whole or not at all; one
            warning names all that were not restored.

    Returns:
        The variables that were restored, and the arrays, variables and states that were not.

    Raises:
        CorruptCheckpointError: The file is not safe to load, damaged, or cannot be read.
        ArchitectureError: The weights do not fit; with `strict=False`, none of them does.
    """
    from remote_ckpt.restore._kept import own_scope

    if isinstance(source, str):
        source = Source(source)
    _check(path, source)
    try:
        with own_scope(model):
            taken = _load(model, path, source, strict=strict, optimizer=optimizer)
    except DAMAGED as exc:
        raise CorruptCheckpointError(f"{source} cannot be read as a Keras file: {exc}") from exc
    if taken.problems:
        log.warning("%s: the weights are restored, and this is not: %s.", source, "; ".join(taken.problems))
    return taken


def _check(path: Path, source: Source) -> None:
    try:
        (check_keras_archive if path.suffix == ".keras" else check)(path)
    except CorruptCheckpointError as exc:
        raise CorruptCheckpointError(f"{source}: {exc}") from exc


def _load(model: Any, path: Path, source: Source, *, strict: bool, optimizer: bool) -> Taken:
    if _loads_by_itself(model):
        return _load_by_itself(model, path, source)
    if path.suffix == ".h5" and not path.name.endswith(".weights.h5"):
        from remote_ckpt.restore._legacy import load_legacy

        return load_legacy(model, path, source, strict=strict, optimizer=optimizer)
    from remote_ckpt.restore._assets import load_assets
    from remote_ckpt.restore._held import Held

    with open_weights(path) as file:
        with reading(source):
            held = Held(file)
        taken = _load_arrays(model, held, source, strict=strict, optimizer=optimizer)
    taken.problems += load_assets(model, path)
    return taken


def _loads_by_itself(model: Any) -> bool:
    method = getattr(type(model), "load_weights", None)
    return "load_weights" in vars(model) or not getattr(method, "__module__", "").startswith("keras.")


def _load_by_itself(model: Any, path: Path, source: Source) -> Taken:
    """Load the file by the model's own `load_weights`, without an account of arrays and weights."""
    from remote_ckpt.restore._kept import put_back_on_failure

    optimizer = getattr(model, "optimizer", None)
    # The model's method may load the optimizer too, and only a built optimizer has variables to load into.
    if optimizer is not None and not optimizer.built and model.trainable_variables:
        optimizer.build(model.trainable_variables)
    try:
        with put_back_on_failure(model.variables):
            model.load_weights(str(path))
    except ValueError as exc:  # `from None`: Keras's message prints whole matrices
        raise ArchitectureError(f"{source} was refused by the model's own load_weights: {_short(exc)}") from None
    return Taken([variable.path for variable in model.weights])


def _load_arrays(model: Any, held: Any, source: Source, *, strict: bool, optimizer: bool) -> Taken:
    from remote_ckpt.restore import _optimizers, _walk
    from remote_ckpt.restore._judge import account, own_variables, refuse
    from remote_ckpt.restore._kept import put_back_on_failure

    matches = _walk.match(model, held, cast=not strict)
    found = account(model, held, matches, _optimizers.places_in_file(held, matches))
    loads = any(match.keys for match in matches.found.values())
    if (strict and not found.whole) or (not loads and (found.arrays or model.weights)):
        raise refuse(found, model, source)
    taken = Taken([v.path for v in found.taken], found.spare, [v.path for v in found.missing])
    if optimizer:
        fitting, taken.problems = _optimizers.restorable(model, held, matches, source)
        matches.found.update({id(match.saveable): match for match in fitting})
    concerned = [
        v for match in matches.found.values() for v in match.variables.values() or own_variables(match.saveable)
    ]
    with put_back_on_failure(list({id(v): v for v in concerned}.values())):
        read, problem = _walk.read(model, held, matches)
        if isinstance(problem, DAMAGED):  # raised inside this block, so that assigned variables are put back
            raise problem
        if problem is not None:
            raise ArchitectureError(
                f"{source} does not fit the model '{model.name}', which is as it was before: {_short(problem)}"
            ) from None
        # A layer's own loading method may ignore arrays that were matched with the layer.
        if left := sorted(matches.taken - read):
            raise ArchitectureError(
                f"{source} does not fit the model '{model.name}', which is as it was before: {len(left)} arrays of the "
                f"checkpoint were not read by their layers, the first at '{left[0][0]}'."
            )
    return taken


def _short(problem: Exception) -> str:
    """Return the first line of a loading method's error, without the matrices in Keras's messages."""
    first = str(problem).partition("Target variable")[0].splitlines() or [""]
    return f"{type(problem).__name__}: {first[0][:300]}"
