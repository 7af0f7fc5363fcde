"""`remote-ckpt verify`: compare every object with the record."""

from __future__ import annotations

from typing import Annotated

import typer

from remote_ckpt.cli._arguments import Debug, Json, Options, Url, parse_which, storage_options
from remote_ckpt.cli._console import say, say_json
from remote_ckpt.cli._facts import as_json
from remote_ckpt.cli._group import DAMAGED
from remote_ckpt.cli._progress import transfer
from remote_ckpt.run import Run, Verdict

Some = Annotated[
    str | None,
    typer.Argument(metavar="WHICH", help="best, latest, an epoch (from 1) or an id; else all.", show_default=False),
]


def verify(
    url: Url,
    which: Some = None,
    option: Options = None,
    json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - see Debug
) -> None:
    """Download checkpoints and compare them with what was recorded.

    Exit code 2: one is damaged or missing.
    """
    wanted = None if which is None else parse_which(which)
    run = Run(url, storage_options=storage_options(option))
    chosen = run.checkpoints if wanted is None else [run.find(wanted)]
    if not chosen:
        raise run.nothing()
    verdicts = []
    with transfer("verifying", sum(record.size for record in chosen)) as progress:
        for verdict in run.verify(wanted, progress=progress):
            verdicts.append(verdict)
            if not json:
                _tell_verdict(verdict)
    if json:
        say_json([{**as_json(verdict.checkpoint), "problem": verdict.problem} for verdict in verdicts])
    if any(verdict.problem for verdict in verdicts):
        raise typer.Exit(DAMAGED)


def _tell_verdict(verdict: Verdict) -> None:
    record = verdict.checkpoint
    if verdict.problem is None:
        say(f"ok   epoch {record.epoch + 1}  {record.key}")
    else:
        say(f"BAD  epoch {record.epoch + 1}  {record.key}: {verdict.problem}", style="red")
