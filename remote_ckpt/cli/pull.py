"""`remote-ckpt pull`: a checkpoint to the local disk, or into a pipe."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from remote_ckpt.cli._arguments import Chosen, Debug, Json, Options, Url, parse_which, storage_options
from remote_ckpt.cli._console import say_json
from remote_ckpt.cli._facts import as_json
from remote_ckpt.cli._progress import transfer
from remote_ckpt.records import Checkpoint
from remote_ckpt.run import Run

_STDOUT = Path("-")

To = Annotated[
    Path | None,
    typer.Option(
        "--to",
        "--output",
        "-o",
        metavar="FILE",
        help="A file, which is replaced; an existing folder, where nothing is; or - for stdout. Without it the file is "
        "in the cache: do not change it, and use it within ten minutes, after which others may take its place.",
        show_default=False,
    ),
]


def pull(
    url: Url,
    which: Chosen = "best",
    to: To = None,
    option: Options = None,
    json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - see Debug
) -> None:
    """Download a checkpoint, verify it, and print where it is.

    With -o - the file itself goes to stdout, after all of it has been verified.
    """
    if to == _STDOUT:
        _require_pipe(json=json)
    run = Run(url, storage_options=storage_options(option))
    found = run.find(parse_which(which))
    with transfer("downloading", found.size) as progress:
        path = run.pull(parse_which(which), progress=progress)
    if to == _STDOUT:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
        sys.stdout.buffer.flush()
        return
    record = _pulled(run, found, path)
    if to is not None:
        path = run.pull(record.id, to)  # now a copy from the cache
    if json:
        say_json({**as_json(record), "path": str(path)})
    else:
        print(path)  # noqa: T201 - for $(…): never wrapped, coloured or cleaned


def _require_pipe(*, json: bool) -> None:
    if json:
        raise typer.BadParameter("-o - and --json both want stdout.")
    if sys.stdout.isatty():
        raise typer.BadParameter("Bytes would garble the terminal. Write -o - > FILE, or -o FILE.")


def _pulled(run: Run, found: Checkpoint, path: Path) -> Checkpoint:
    """Return the record of a pulled file: `found`, or another checkpoint that was fetched instead.

    `find` and `pull` read the manifest separately: between them a writer may commit a new best or prune `found`. And
    for a missing or damaged best (or latest), `pull` fetches the next checkpoint.
    """
    if path.name.startswith(found.sha256):
        return found
    return next(record for record in reversed(run.checkpoints) if path.name.startswith(record.sha256))
