"""Where a restore reads from, and what it took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from remote_ckpt.errors import CorruptCheckpointError, RemoteCkptError

# What h5py, and Keras's reading of attributes, raise for metadata that is damaged and yet passes the check.
_DAMAGED = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError)


@dataclass(frozen=True)
class Source:
    """A checkpoint as a restore's messages name it.

    Attributes:
        name: The object's URL.
        place: Which checkpoint of which run it is; empty where that is not known.
        optimizers: What the record says of each optimizer, by its place in the model; see `describe_optimizers`.
    """

    name: str
    place: str = ""
    optimizers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} ({self.place})" if self.place else self.name


@contextmanager
def reading(source: Source) -> Iterator[None]:
    """Raise CorruptCheckpointError for whatever goes wrong while a file's structure is read."""
    try:
        yield
    except RemoteCkptError:
        raise
    except _DAMAGED as exc:
        raise CorruptCheckpointError(f"{source} cannot be read as a Keras file: {exc}") from exc


@dataclass
class Taken:
    """What one restore brought back.

    Attributes:
        taken: The model's variables that have the checkpoint's values now, by their paths in Keras.
        not_taken: The arrays of the checkpoint that no variable of the model took, by their names in the file.
        missing: The model's variables that the checkpoint has no value for; they are as they were.
        problems: Why other state (optimizers', vocabularies) did not come back; a sentence each.
    """

    taken: list[str] = field(default_factory=list)
    not_taken: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all that was saved came back, and nothing of the model was left out."""
        return not (self.not_taken or self.missing or self.problems)
