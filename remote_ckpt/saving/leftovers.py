"""Sentences about checkpoints not in the bucket: how many, where they wait, and how to upload them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from remote_ckpt.location import Location


@dataclass(frozen=True)
class Leftovers:
    """The checkpoints of a run not yet in the bucket.

    Attributes:
        location: The run.
        folder: The spool folder where sealed checkpoints wait.
        sealed: How many checkpoints are sealed on the local disk.
        unwritten: How many captured checkpoints are not sealed yet.
        refused: By URL, the errors of the sealed checkpoints that cannot be uploaded.
    """

    location: Location
    folder: Path
    sealed: int
    unwritten: int
    refused: Mapping[str, Exception] = field(default_factory=dict)

    @property
    def only_refused(self) -> bool:
        """Whether all checkpoints left are refused; False if none is left."""
        return bool(self.refused) and len(self.refused) == self.sealed and not self.unwritten

    def told(self) -> str:
        """Return indented lines for people, each with a newline in front; empty when nothing is left."""
        name, text = self.location.name, ""
        if self.sealed:
            text += (
                f"\n  {count(self.sealed)} wait{'s' if self.sealed == 1 else ''} in {self.folder}: on this "
                f"machine, `remote-ckpt recover {name}` or the next training with this filepath uploads what is there."
            )
        if self.unwritten:
            text += f"\n  {count(self.unwritten)} not even written to the local disk yet."
        return text + "".join(f"\n  {url} was refused: {error}" for url, error in self.refused.items())


def count(number: int) -> str:
    """Return a number with its noun: `1 checkpoint`, `2 checkpoints`."""
    return f"{number} checkpoint{'' if number == 1 else 's'}"
