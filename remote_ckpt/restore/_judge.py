"""Account for every array of a file and every weight of a model, and describe the differences in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from remote_ckpt.errors import ArchitectureError
from remote_ckpt.restore._held import Held, dataset_name, in_order
from remote_ckpt.restore._outcome import Source
from remote_ckpt.restore._walk import Matches, Miss

CALL_IT = (
    "Call the model once on a batch of data before loading (build() alone need not build its layers), or begin it with "
    "an Input."
)
BUILD_ALIKE = (
    "Build the model as it was when it was saved; to load what fits and leave the rest, pass strict=False to "
    "load_best, load_latest or Run.load."
)


@dataclass
class Account:
    """The arrays and weights to restore, and the rest on either side.

    Attributes:
        taken: Variables that would get a value.
        spare: Arrays of the file without a place in the model, by name.
        missing: Weights of the model without a value in the file.
        first: A description of the first difference; None without a difference.
        unbuilt: Whether the model, or a layer that does not fit, is not built.
        arrays: How many arrays of weights the file has.
    """

    taken: list[Any]
    spare: list[str]
    missing: list[Any]
    first: str | None
    unbuilt: bool
    arrays: int

    @property
    def whole(self) -> bool:
        """Whether nothing is left over on either side."""
        return not (self.spare or self.missing)


def account(model: Any, held: Held, matches: Matches, optimizers: set[str]) -> Account:
    """Compare a model's weights with a file's arrays; `optimizers` are the file's places without weights."""
    taken = [variable for match in matches.found.values() for variable in match.variables.values()]
    covered = {id(variable) for variable in taken}
    for found in matches.found.values():
        # A saveable with a loading method of its own counts as covered here. After the load `_load_arrays` checks
        # whether the method has read its arrays.
        if found.keys and not found.variables:
            covered.update(id(variable) for variable in own_variables(found.saveable))
    missing = [variable for variable in model.weights if id(variable) not in covered]
    weights = [(place, key) for place in in_order(held.groups.keys() - optimizers) for key in held.groups[place]]
    left = [item for item in weights if item not in matches.taken]
    misses = [miss for miss in matches.missed.values() if miss.unbuilt or _counts(miss, missing, held)]
    return Account(
        taken=taken,
        spare=[dataset_name(*item) for item in left],
        missing=missing,
        first=_first(held, misses, left, missing),
        unbuilt=not model.built or any(miss.unbuilt for miss in misses),
        arrays=len(weights),
    )


def own_variables(saveable: Any) -> list[Any]:
    """Return the variables of a layer itself, without the variables of inner layers."""
    return [
        *getattr(saveable, "_trainable_variables", ()),
        *getattr(saveable, "_non_trainable_variables", ()),
    ]


def _counts(miss: Miss, missing: list[Any], held: Held) -> bool:
    lacking = {id(variable) for variable in missing}
    return miss.place in held.groups or any(id(variable) in lacking for variable in own_variables(miss.saveable))


def _first(held: Held, misses: list[Miss], left: list[tuple[str, str]], missing: list[Any]) -> str | None:
    if misses:
        miss = misses[0]
        why = "it has not been built" if miss.unbuilt else miss.reason
        return f"layer '{_name(miss.saveable)}' at '{miss.place}': {why}"
    if left:
        place, key = left[0]
        named = f", saved by layer '{held.names[place]}'" if place in held.names else ""
        return f"'{dataset_name(place, key)}', {held.groups[place][key]}{named}"
    return f"'{missing[0].path}'" if missing else None


def _name(saveable: Any) -> str:
    return str(getattr(saveable, "name", type(saveable).__name__))


def refuse(account: Account, model: Any, source: Source) -> ArchitectureError:
    """Return (do not raise) the error about a model and a checkpoint with different weights."""
    facts = []
    if account.spare:
        facts.append(
            f"{len(account.spare)} of the checkpoint's {account.arrays} arrays of weights have no place in the model"
        )
    if account.missing:
        facts.append(f"{len(account.missing)} of the model's {len(model.weights)} weights are not in the checkpoint")
    if not facts:
        facts.append("the checkpoint has no weights that the model could take")
    where = f" They differ first at {account.first}." if account.first else ""
    advice = CALL_IT if account.unbuilt else BUILD_ALIKE
    return ArchitectureError(
        f"{source} does not fit the model '{model.name}', which is as it was before: "
        f"{', and '.join(facts)}.{where} {advice}"
    )
