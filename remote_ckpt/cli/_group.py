"""How commands are found, and how each ends: our errors as one line and an exit code, never as a traceback unasked."""

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
        """Know the commands by name and first line."""
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=line) for name, line in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that is called."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if command and name else None, rest

    def invoke(self, ctx: Any) -> Any:
        """Run a command; translate how it ended."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as exc:
            tell("interrupted. Nothing partial is left behind; the command can be run again.")
            raise typer.Exit(INTERRUPTED) from exc
        except BrokenPipeError:
            raise  # typer ends quietly: whoever read the output has gone
        except (RemoteCkptError, OSError) as exc:
            if ctx.meta.get(_DEBUG):
                raise
            tell(str(exc), style="red")
            raise typer.Exit(FAILED) from exc


def remember_debug(ctx: typer.Context, wanted: bool) -> bool:
    """Note, for the group, that errors are to be shown as Python shows them."""
    ctx.meta[_DEBUG] = wanted
    return wanted
