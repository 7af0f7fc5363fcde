"""`remote-ckpt recover`: what dead processes left on this machine, into the bucket."""

from __future__ import annotations

from remote_ckpt.cli._arguments import Debug, Options, Url, storage_options
from remote_ckpt.cli._console import say, tell
from remote_ckpt.cli._progress import transfer
from remote_ckpt.run import Run


def recover(url: Url, option: Options = None, debug: Debug = False) -> None:  # noqa: ARG001 - see Debug
    """Upload the checkpoints that processes which have ended left in this machine's spool."""
    run = Run(url, storage_options=storage_options(option))
    waiting = run.pending()
    if not waiting:
        tell(f"nothing waits on this machine for {run.url}.")
        return
    with transfer("uploading", sum(entry.record.size for entry in waiting)) as progress:
        done = run.recover(progress=progress)
    for record in done:
        say(f"uploaded epoch {record.epoch + 1}  {record.url or run.location.url(record.key)}")
    if left := len(run.pending()):
        tell(f"{left} belong to a process that is still running; it uploads them itself.")
