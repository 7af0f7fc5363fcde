"""`remote-ckpt report`: a page about runs."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from remote_ckpt.cli._arguments import Debug
from remote_ckpt.cli._console import tell
from remote_ckpt.cli._curves import Direction, Metric, StoreOptions, Urls, find_curves
from remote_ckpt.pictures.files import write_whole
from remote_ckpt.pictures.page import page


def _checked(output: str) -> str:
    if Path(output).suffix.lower() not in (".html", ".htm"):
        hint = " For the store, write --option KEY=VALUE." if "=" in output else ""
        raise typer.BadParameter(f"The page's name ends in .html.{hint}")
    return output


Output = Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The page.", callback=_checked)]


def report(
    urls: Urls,
    output: Output = "report.html",
    metric: Metric = None,
    mode: Direction = None,
    option: StoreOptions = None,
    debug: Debug = False,  # noqa: ARG001 - see Debug
) -> None:
    """Write a page about runs: a leaderboard, scores by epoch, and how soon checkpoints were in the bucket.

    The page is one file that asks the network for nothing, for light and dark screens.
    """
    curves = find_curves(urls, option, metric, mode)
    write_whole(output, page(curves, datetime.now(timezone.utc)).encode())
    tell(f"wrote {output}")
