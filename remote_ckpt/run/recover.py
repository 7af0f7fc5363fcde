"""Publish checkpoints left in this machine's spool by dead processes; a refused checkpoint does not stop the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from remote_ckpt.errors import CorruptCheckpointError, RemoteCkptError, SaveFailedError, StoreError
from remote_ckpt.records import Checkpoint
from remote_ckpt.saving.failure_scope import Blame, blame
from remote_ckpt.saving.leftovers import count
from remote_ckpt.saving.publisher import Publisher
from remote_ckpt.saving.spool import Spool, SpoolEntry
from remote_ckpt.stores.base import Progress, TransferReport


@dataclass
class Recovery:
    """The outcome of a recovery.

    Attributes:
        done: The checkpoints that are in the bucket now.
        failed: Errors by URL. Under a checkpoint's URL: why the checkpoint is not in the bucket; it is still in the
            spool, unless it was damaged. Under a fixed name's URL: why the fixed name does not show a checkpoint that
            is in `done`.
    """

    done: list[Checkpoint] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)

    def check(self) -> None:
        """Raise the failures, if any, as an error of their common class; without failures return.

        The message names the URL of each failure.

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
    """Return the package's error class common to all errors; `SaveFailedError` without a common class."""
    kinds = {type(error) for error in errors}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is not None and issubclass(kind, RemoteCkptError):
        return kind
    return StoreError if kinds and all(issubclass(kind, StoreError) for kind in kinds) else SaveFailedError


def recover(spool: Spool, publisher: Publisher, progress: Progress | None = None) -> Recovery:
    """Publish the waiting checkpoints, oldest first.

    A checkpoint that is refused for its own sake is passed over. A failure of the run (see `Blame.RUN`) ends the
    recovery; the rest waits in the spool. On return the spool's locks are released, after an error too. Repeating is
    safe.

    Raises:
        StoreError: Something waits, and the run's server cannot be found out. Failures of single checkpoints are not
            raised but returned.
    """
    recovery = Recovery()
    try:
        for entry in spool.adopt(unnoted=True):
            if not _is_published(entry, publisher, spool.beating(progress), recovery):
                break
    finally:
        spool.close()
    return recovery


def _is_published(entry: SpoolEntry, publisher: Publisher, progress: Progress | None, recovery: Recovery) -> bool:
    """Publish a checkpoint and record the outcome; return whether to go on with the next checkpoint."""
    url = publisher.location.url(entry.record.key)
    try:
        commit = publisher.publish(entry, TransferReport(), progress)
    except Exception as exc:  # noqa: BLE001 - `Recovery.check` raises it after the others were tried
        recovery.failed[url] = exc
        damaged = isinstance(exc, CorruptCheckpointError)
        if damaged:
            entry.drop()  # no later attempt can succeed: the file on the local disk is damaged
        return damaged or blame(exc, publisher.committer) is not Blame.RUN
    if commit.problem is not None:  # committed, but the copy under the fixed name failed
        recovery.failed[publisher.location.url(entry.record.series)] = commit.problem
    recovery.done.append(commit.series.find(entry.record.id) or entry.record)
    return True
