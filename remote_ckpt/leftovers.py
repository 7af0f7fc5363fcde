"""What did not reach the bucket, in words: how much, where it waits, and what brings it there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from remote_ckpt.location import Location


@dataclass(frozen=True)
class Leftovers:
    """Checkpoints of one run that are not in the bucket.

    Attributes:
        location: The run.
        folder: Where the sealed ones wait.
        sealed: How many are on the local disk.
        unwritten: How many are not even there yet.
        refused: Why some of the sealed ones cannot be uploaded, by their URLs.
    """

    location: Location
    folder: Path
    sealed: int
    unwritten: int
    refused: Mapping[str, Exception] = field(default_factory=dict)

    @property
    def only_refused(self) -> bool:
        """Whether nothing waits but what was refused."""
        return bool(self.refused) and len(self.refused) == self.sealed and not self.unwritten

    def told(self) -> str:
        """Return indented lines for people, each begun by a newline; empty when nothing is left."""
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
    """Return a number of checkpoints, in words."""
    return f"{number} checkpoint{'' if number == 1 else 's'}"
