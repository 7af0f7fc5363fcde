"""The source and the outcome of a restore."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from remote_ckpt.errors import CorruptCheckpointError, RemoteCkptError

# What h5py, and Keras's reading of attributes, raise for metadata that is damaged and yet passes the check.
_DAMAGED = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError)


@dataclass(frozen=True)
class Source:
    """A checkpoint's names for the messages of a restore, and descriptions of optimizers.

    Attributes:
        name: The object's URL.
        place: The epoch and the run, in words; empty where they are not known.
        optimizers: The record's description of each optimizer, by the optimizer's place in the model; see
            `capture.optimizers.describe`.
    """

    name: str
    place: str = ""
    optimizers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} ({self.place})" if self.place else self.name


@contextmanager
def reading(source: Source) -> Iterator[None]:
    """Raise CorruptCheckpointError in place of the errors of damaged metadata in the block."""
    try:
        yield
    except RemoteCkptError:  # some of these are a ValueError too
        raise
    except _DAMAGED as exc:
        raise CorruptCheckpointError(f"{source} cannot be read as a Keras file: {exc}") from exc


@dataclass
class Taken:
    """The outcome of a restore.

    Attributes:
        taken: The model's variables that have the checkpoint's values now, by their paths in Keras.
        not_taken: The arrays of the checkpoint that no variable of the model took, by their names in the file.
        missing: The model's variables for which the checkpoint has no value, by their paths; they are as they were.
        problems: A sentence for each optimizer or vocabulary that was not restored.
    """

    taken: list[str] = field(default_factory=list)
    not_taken: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the whole checkpoint was restored, and every weight of the model got a value."""
        return not (self.not_taken or self.missing or self.problems)
