"""What dead processes left in this machine's spool, into the bucket: each by itself, so that none holds up the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from remote_ckpt.blame import Blame, blame
from remote_ckpt.checkpoint import Checkpoint
from remote_ckpt.errors import CorruptCheckpointError, RemoteCkptError, SaveFailedError, StoreError
from remote_ckpt.leftovers import count
from remote_ckpt.publish import Publisher
from remote_ckpt.spool import Entry, Spool
from remote_ckpt.stores.base import Progress, TransferReport


@dataclass
class Recovery:
    """How it went.

    Attributes:
        done: The checkpoints that are in the bucket now.
        failed: Why others are not, by their URLs. All but damaged ones are still in the spool.
    """

    done: list[Checkpoint] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)

    def check(self) -> None:
        """Raise what failed, by name: as an error of the class that all have in common.

        Raises:
            RemoteCkptError: Something failed; `SaveFailedError` for failures of different kinds.
        """
        if not self.failed:
            return
        url, first = next(iter(self.failed.items()))
        if len(self.failed) == 1 and url in str(first):
            raise first
        each = "".join(f"\n  {url}: {error}" for url, error in self.failed.items())
        raise _common(self.failed.values())(f"{count(len(self.failed))} could not be uploaded:{each}") from first


def _common(errors: Iterable[Exception]) -> type[RemoteCkptError]:
    """Return the class of all errors, where they have one of ours in common."""
    kinds = {type(error) for error in errors}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is not None and issubclass(kind, RemoteCkptError):
        return kind
    return StoreError if kinds and all(issubclass(kind, StoreError) for kind in kinds) else SaveFailedError


def recover(spool: Spool, publisher: Publisher, progress: Progress | None = None) -> Recovery:
    """Publish what waits, oldest first.

    A checkpoint that is refused for its own sake is passed over; a failure of the run ends it for all.
    """
    recovery = Recovery()
    try:
        for entry in spool.adopt(unnoted=True):
            if not _is_published(entry, publisher, spool.beating(progress), recovery):
                break
    finally:
        spool.close()
    return recovery


def _is_published(entry: Entry, publisher: Publisher, progress: Progress | None, recovery: Recovery) -> bool:
    """Publish one, and note how it went; return whether it makes sense to go on with the next."""
    url = publisher.location.url(entry.record.key)
    try:
        commit = publisher.publish(entry, TransferReport(), progress)
    except Exception as exc:  # noqa: BLE001 - raised, or told, once the others had their turn
        recovery.failed[url] = exc
        damaged = isinstance(exc, CorruptCheckpointError)
        if damaged:
            entry.drop()
        return damaged or blame(exc, publisher.committer) is not Blame.RUN
    if commit.problem is not None:
        recovery.failed[publisher.location.url(entry.record.series)] = commit.problem
    recovery.done.append(commit.series.find(entry.record.id) or entry.record)
    return True
