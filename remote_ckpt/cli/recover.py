"""`remote-ckpt recover`: upload the checkpoints left in this machine's spool by ended processes."""

from __future__ import annotations

from remote_ckpt.cli._arguments import Debug, Json, Options, Url, storage_options
from remote_ckpt.cli._console import say, say_json, tell
from remote_ckpt.cli._facts import as_json
from remote_ckpt.cli._progress import transfer
from remote_ckpt.run import Run
from remote_ckpt.run.recover import Recovery


def recover(
    url: Url,
    option: Options = None,
    json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - see Debug
) -> None:
    """Upload the checkpoints that processes which have ended left in this machine's spool."""
    run = Run(url, storage_options=storage_options(option))
    waiting = run.pending()
    recovery = Recovery()
    if waiting:
        with transfer("uploading", sum(entry.record.size for entry in waiting)) as progress:
            recovery = run.recovery(progress=progress)
    left = len(run.pending())
    elsewhere = run.elsewhere()
    for sentence in elsewhere:
        tell(sentence, style="yellow")
    if json:
        failed = {"failed": {url: str(error) for url, error in recovery.failed.items()}} if recovery.failed else {}
        say_json({"uploaded": [as_json(record) for record in recovery.done], "left": left, **failed})
        recovery.check()
        return
    for record in recovery.done:
        say(f"uploaded epoch {record.epoch + 1}  {record.url or run.location.url(record.key)}")
    recovery.check()
    if left:
        tell(f"{left} belong to a process that is still running, or may be on another host; it uploads them itself.")
    elif not waiting and not elsewhere:
        tell(
            f"nothing waits on this machine for {run.url}. Did training use another spool_dir? "
            "Set REMOTE_CKPT_SPOOL to it."
        )
