"""All commands in one program."""

from __future__ import annotations

import typer

from remote_ckpt.cli._console import show_warnings
from remote_ckpt.cli._group import Group
from remote_ckpt.cli.demo import demo
from remote_ckpt.cli.ls import ls
from remote_ckpt.cli.prune import prune
from remote_ckpt.cli.pull import pull
from remote_ckpt.cli.recover import recover
from remote_ckpt.cli.show import show
from remote_ckpt.cli.sign import sign
from remote_ckpt.cli.sweep import sweep
from remote_ckpt.cli.verify import verify

app = typer.Typer(
    name="remote-ckpt",
    cls=Group,
    help="Look after Keras checkpoints in a bucket. Credentials come from where the store's own tools find them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # their listings show local variables, and secrets among them
    rich_markup_mode="rich",
)
for command in (ls, show, pull, verify, recover, prune, sweep, sign, demo):
    app.command()(command)


def main() -> None:
    """Run `remote-ckpt` with the process's arguments, and exit."""
    show_warnings()
    app(prog_name="remote-ckpt")
