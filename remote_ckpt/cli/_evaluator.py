"""Execution of the command of `watch --exec` on each new best."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import typer

from remote_ckpt.cli._console import safe, tell
from remote_ckpt.errors import CorruptCheckpointError, NoCheckpointError, StoreError, TransientError
from remote_ckpt.manifest import signing
from remote_ckpt.records import Checkpoint
from remote_ckpt.run import Run

VARIABLES = "REMOTE_CKPT_FILE, _URL, _RUN, _ID, _EPOCH (from 1), _MONITOR and _SCORE"


@dataclass(frozen=True)
class Evaluator:
    """A command to be run on checkpoints, a single checkpoint at a time.

    No shell is involved, and no text from a manifest becomes part of the command: `{}` is replaced by the path of the
    downloaded and verified file in the cache, named by its digest. The other facts are in environment variables. The
    signing key is removed from the environment: a program that evaluates a checkpoint need not be able to sign one.
    """

    words: tuple[str, ...]

    @classmethod
    def parse(cls, command: str) -> Evaluator:
        """Split a command into words as a shell would; pipes, variables and wildcards have no meaning.

        Raises:
            typer.BadParameter: A quote is not closed, or there is no such program.
        """
        try:
            words = tuple(shlex.split(command))
        except ValueError as exc:
            raise typer.BadParameter(f"--exec {command!r} cannot be split into words: {exc}.") from exc
        if not words or shutil.which(words[0]) is None:
            raise typer.BadParameter(f"--exec: there is no program {words[0] if words else ''!r} to run.")
        return cls(words)

    def run(self, run: Run, checkpoint: Checkpoint, monitor: str) -> None:
        """Download a checkpoint, run the command, and wait for the end of the command.

        A failed download and a command that fails are printed on stderr as warnings; `watch` goes on.

        Raises:
            TransientError: The store does not answer; the command was not run.
            OSError: The download cannot be written, or the command cannot be started.
        """
        try:
            path = run.pull(checkpoint.id)
        except TransientError:  # a StoreError too: `watch` tries again at the next look
            raise
        except (CorruptCheckpointError, NoCheckpointError, StoreError) as exc:
            tell(f"epoch {checkpoint.epoch + 1} was not evaluated: {exc}", style="yellow")
            return
        words = [word.replace("{}", str(path)) for word in self.words]
        environment = {name: value for name, value in os.environ.items() if name != signing.VARIABLE}
        code = subprocess.run(words, env={**environment, **_variables(run, checkpoint, monitor, path)}).returncode
        if code:
            ended = f"exit code {code}" if code > 0 else f"signal {-code}"
            tell(f"{self.words[0]} ended with {ended} on epoch {checkpoint.epoch + 1}.", style="yellow")


def _variables(run: Run, checkpoint: Checkpoint, monitor: str, path: Path) -> dict[str, str]:
    facts = {
        "FILE": str(path),
        "URL": checkpoint.url,
        "RUN": run.url,
        "ID": checkpoint.id,
        "EPOCH": str(checkpoint.epoch + 1),
        "MONITOR": monitor,
        "SCORE": "" if checkpoint.score is None else repr(checkpoint.score),
    }
    return {f"REMOTE_CKPT_{name}": safe(value) for name, value in facts.items()}
