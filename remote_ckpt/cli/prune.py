"""`remote-ckpt prune`: delete all checkpoints but a number of the best and of the latest."""

from __future__ import annotations

from typing import Annotated

import typer

from remote_ckpt.cli._arguments import Debug, DryRun, Json, Options, Url, storage_options
from remote_ckpt.cli._console import say, say_json, tell
from remote_ckpt.cli._facts import as_json
from remote_ckpt.run import Run

KeepBest = Annotated[int | None, typer.Option("--keep-best", min=0, help="How many of the best to keep.")]
KeepLast = Annotated[int | None, typer.Option("--keep-last", min=0, help="How many of the latest to keep.")]


def prune(
    url: Url,
    keep_best: KeepBest = None,
    keep_last: KeepLast = None,
    dry_run: DryRun = False,
    option: Options = None,
    json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - see Debug
) -> None:
    """Delete all but some checkpoints.

    The best and the latest of each series always stay.
    """
    if keep_best is None and keep_last is None:
        raise typer.BadParameter("Say what to keep: --keep-best N, --keep-last N, or both.")
    gone = Run(url, storage_options=storage_options(option)).prune(keep_best, keep_last, dry_run=dry_run)
    if json:
        say_json({"dry_run": dry_run, "deleted": [as_json(record) for record in gone]})
        return
    for record in gone:
        say(f"{'would delete' if dry_run else 'deleted'} epoch {record.epoch + 1}  {record.key}")
    if not gone:
        tell("nothing to delete.")
