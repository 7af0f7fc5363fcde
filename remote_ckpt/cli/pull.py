"""`remote-ckpt pull`: a checkpoint to the local disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from remote_ckpt.cli._arguments import Chosen, Debug, Options, Url, parse_which, storage_options
from remote_ckpt.cli._progress import transfer
from remote_ckpt.run import Run

To = Annotated[Path | None, typer.Option("--to", help="A file or an existing folder; else it stays in the cache.")]


def pull(
    url: Url,
    which: Chosen = "best",
    to: To = None,
    option: Options = None,
    debug: Debug = False,  # noqa: ARG001 - see Debug
) -> None:
    """Download a checkpoint, verify it, and print where it is."""
    run = Run(url, storage_options=storage_options(option))
    wanted = parse_which(which)
    with transfer("downloading", run.find(wanted).size) as progress:
        path = run.pull(wanted, to, progress=progress)
    print(path)  # noqa: T201 - for $(…): never wrapped, coloured or cleaned
