"""All commands in one program."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from remote_ckpt.cli._console import show_warnings, tell
from remote_ckpt.cli._group import FAILED, Group
from remote_ckpt.urls import redact

app = typer.Typer(
    name="remote-ckpt",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # these tracebacks print local variables, which may hold secrets
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done; 1 failed; 2 called wrongly, or verify found damage; 130 interrupted. "
    "Results go to stdout, messages and progress to stderr. NO_COLOR=1 switches colours off.",
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"remote-ckpt {version('remote_ckpt')}")  # noqa: T201 - for programs
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """Look after Keras checkpoints in a bucket. Credentials come from where the store's own tools find them."""


def main() -> None:
    """Run `remote-ckpt` with the process's arguments, and exit."""
    show_warnings()
    try:
        app(prog_name="remote-ckpt")
    except Exception as exc:  # noqa: BLE001 - with --debug, or a bug; `tell` removes control characters of a server
        tell(redact("".join(traceback.format_exception(exc))))
        sys.exit(FAILED)
