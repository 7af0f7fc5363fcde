"""Lookup of the commands, and exit codes: our errors are printed as a line, with a traceback only for --debug."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from remote_ckpt.cli._commands import COMMANDS, load
from remote_ckpt.cli._console import tell
from remote_ckpt.errors import RemoteCkptError

FAILED = 1
DAMAGED = 2
"""Exit code of `verify` when an object is not what was recorded."""
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_DEBUG = "remote_ckpt.debug"


class Group(TyperGroup):
    """All commands. Exit codes: 0 done, 1 failed, 2 damaged (or called wrongly), 130 interrupted."""

    def __init__(self, **attributes: Any) -> None:
        """Register the commands by name and first line, without importing them."""
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=line) for name, line in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the called command."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if command and name else None, rest

    def invoke(self, ctx: Any) -> Any:
        """Run a command; convert errors into a message on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as exc:
            tell("interrupted. Nothing partial is left behind; the command can be run again.")
            raise typer.Exit(INTERRUPTED) from exc
        except BrokenPipeError:
            raise  # an OSError too: the reader of our output has ended, and typer then exits without a message
        except (RemoteCkptError, OSError) as exc:
            if ctx.meta.get(_DEBUG):
                raise
            tell(str(exc), style="red")
            raise typer.Exit(FAILED) from exc


def remember_debug(ctx: typer.Context, wanted: bool) -> bool:
    """Store the value of --debug for `Group.invoke`."""
    ctx.meta[_DEBUG] = wanted
    return wanted
