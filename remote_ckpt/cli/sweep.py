"""`remote-ckpt sweep`: delete the remains of interrupted writers from the bucket."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from remote_ckpt.cli._arguments import Debug, DryRun, Json, Options, Url, storage_options
from remote_ckpt.cli._console import say, say_json, tell
from remote_ckpt.run import Run

Hours = Annotated[
    float, typer.Option("--older-than", metavar="HOURS", min=0, help="What is younger may still be under way.")
]


def sweep(
    url: Url,
    older_than: Hours = 24,
    dry_run: DryRun = False,
    option: Options = None,
    json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - see Debug
) -> None:
    """Delete objects that no manifest names, and abort this run's unfinished uploads."""
    run = Run(url, storage_options=storage_options(option))
    gone = run.sweep(timedelta(hours=older_than), dry_run=dry_run)
    if json:
        say_json({"dry_run": dry_run, "deleted": gone})
        return
    for key in gone:
        say(f"{'would delete' if dry_run else 'deleted'} {key}")
    if not gone:
        tell("nothing to delete.")
