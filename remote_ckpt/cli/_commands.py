"""The commands. Module and function of a command have the command's name; the module is imported on a call.

Each line repeats the first sentence of the function's docstring, so that `--help` need not import the modules.
"""

from __future__ import annotations

import importlib
from typing import Any

import typer

COMMANDS = {
    "ls": "List a run's checkpoints, or the runs below a prefix with the best run first.",
    "show": "Show all that is recorded of one checkpoint, and how to fetch it without remote-ckpt.",
    "pull": "Download a checkpoint, verify it, and print where it is.",
    "push": "Make a file that exists already a checkpoint of a run; the best, if its score is.",
    "plot": "Draw scores by epoch, with the improvements and the best, and how soon each checkpoint was in the bucket.",
    "report": "Write a page about runs: a leaderboard, scores by epoch, and how soon checkpoints were in the bucket.",
    "watch": "Follow a run while it trains: the newest checkpoint, the best, improvements and rate.",
    "verify": "Download checkpoints and compare them with what was recorded.",
    "recover": "Upload the checkpoints that processes which have ended left in this machine's spool.",
    "prune": "Delete all but some checkpoints.",
    "rebuild": "Make a run's manifest anew from what lies there; what it names already is left as it is.",
    "sweep": "Delete objects that no manifest names, and abort this run's unfinished uploads.",
    "sign": "Sign a run's manifest with REMOTE_CKPT_SIGNING_KEY, whoever wrote it: look at it first.",
    "doctor": "Try out credentials, bucket, transfers and spool, and leave nothing behind.",
    "demo": 'Train with checkpoints in a bucket, restore them on "another machine", and compare.',
}


def load(name: str) -> Any:
    """Return a command, ready to run."""
    function = getattr(importlib.import_module(f"remote_ckpt.cli.{name}"), name)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    alone.command(name)(function)
    command = typer.main.get_command(alone)
    paragraphs = (command.help or "").split("\n\n")
    command.help = "\n\n".join(" ".join(text.split()) for text in paragraphs)  # typer keeps a docstring's line ends
    return command
