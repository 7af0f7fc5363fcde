"""`remote-ckpt rebuild`: make a manifest from the objects in the run."""

from __future__ import annotations

from typing import Annotated

import typer

from remote_ckpt.cli._arguments import Debug, Json, Options, Url, storage_options
from remote_ckpt.cli._console import say, say_json, tell
from remote_ckpt.cli._facts import as_json, number
from remote_ckpt.run import Run

Name = Annotated[
    str | None,
    typer.Option("--template", help="The filename template that training saved to.", show_default=False),
]
Monitor = Annotated[
    str | None, typer.Option("--monitor", metavar="METRIC", help="What the scores are of.", show_default=False)
]
Mode = Annotated[str, typer.Option("--mode", help="min, max, or auto: as the metric's name says.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print what would be recorded.")]


def rebuild(
    url: Url,
    template: Name = None,
    monitor: Monitor = None,
    mode: Mode = "auto",
    dry_run: DryRun = False,
    option: Options = None,
    json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - see Debug
) -> None:
    """Make a run's manifest anew from what lies there; what it names already is left as it is.

    Scores come back only where segments of older records hold them. Give the template that training saved to: resume=
    does not find its checkpoints under one that had to be guessed.
    """
    run = Run(url, storage_options=storage_options(option))
    if template is not None:
        run = Run(run.location.with_template(template), storage_options=storage_options(option))
    added = run.rebuild(monitor=monitor, mode=mode, dry_run=dry_run)
    if json:
        say_json({"dry_run": dry_run, "recorded": [as_json(record) for record in added]})
        return
    for record in added:
        done = "would record" if dry_run else "recorded"
        say(f"{done} epoch {record.epoch + 1}  {number(record.score)}  {record.key}  ({record.series})")
    if not added:
        tell("nothing to rebuild: no checkpoint lies there that the manifest does not name.")
