"""`remote-ckpt demo`: from training to restoring in another process, with a real S3 server on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from remote_ckpt.cli._arguments import Debug
from remote_ckpt.cli._console import say
from remote_ckpt.cli._facts import number
from remote_ckpt.errors import RemoteCkptError
from remote_ckpt.records import Checkpoint
from remote_ckpt.run import Run
from remote_ckpt.saving.stats import human_bytes

_LOOK = 0.3  # seconds between two looks at the bucket
_EQUAL = 1e-6  # largest difference of two accuracies that count as equal
_TAIL = 4000  # characters of stderr shown after a failure

Epochs = Annotated[int, typer.Option("--epochs", min=1, help="How long to train.")]
OwnUrl = Annotated[
    str | None,
    typer.Option("--url", help="Use this run instead of a server of our own; credentials from the environment."),
]
Keep = Annotated[bool, typer.Option("--keep", help="Leave the server running until Ctrl-C, to look around.")]


class DemoError(RemoteCkptError):
    """The demonstration failed."""


def demo(
    epochs: Epochs = 60,
    url: OwnUrl = None,
    keep: Keep = False,
    debug: Debug = False,  # noqa: ARG001 - see Debug
) -> None:
    """Train with checkpoints in a bucket, restore them on "another machine", and compare."""
    with tempfile.TemporaryDirectory(prefix="remote-ckpt-demo-") as folder:
        if url is not None:
            _play(url, {}, {}, epochs, Path(folder))
            return
        with _own_environment(), _embedded_server() as server:
            _play(server.url("pima"), server.storage_options, server.environment, epochs, Path(folder))
            if keep:
                _wait(server.environment, server.url("pima"))


@contextmanager
def _own_environment() -> Iterator[None]:
    """Remove the user's settings for real clouds and proxies from the environment, and restore them afterwards."""
    saved = dict(os.environ)
    for name in saved:
        if name.startswith(("AWS_", "FSSPEC_")):
            del os.environ[name]
    nothing = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    os.environ.update({**nothing, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


@contextmanager
def _embedded_server() -> Iterator[Any]:
    from remote_ckpt.testing.servers import start_seaweedfs

    say("Starting an S3 server on this machine (SeaweedFS) …")
    with start_seaweedfs() as server:
        say(f"  {server.endpoint}, bucket {server.bucket!r}")
        yield server


def _play(url: str, options: dict[str, Any], environment: Mapping[str, str], epochs: int, folder: Path) -> None:
    say(f"Training on the Pima Indians diabetes data; each improvement goes to {url}")
    trainer = _Machine.start("_demo_train", [url, str(epochs)], environment, folder / "training-machine")
    with trainer.until_its_end():
        _watch(trainer.process, Run(url, storage_options=options))
    say(f"  {trainer.answer('Training')}")
    say("Restoring the best in another process, which has nothing but the URL …")
    other = _Machine.start("_demo_restore", [url], environment, folder / "another-machine")
    with other.until_its_end():
        other.process.wait()
    _compare(json.loads(other.answer("Restoring")))


@dataclass(frozen=True)
class _Machine:
    """A Python process with an empty cache and spool, and with stdout and stderr in files."""

    process: subprocess.Popen[bytes]
    home: Path

    @classmethod
    def start(cls, module: str, arguments: list[str], environment: Mapping[str, str], home: Path) -> _Machine:
        """Start `module` as a program, with `environment` added to our environment."""
        home.mkdir()
        own = {"XDG_CACHE_HOME": str(home / "cache"), "REMOTE_CKPT_SPOOL": str(home / "spool")}
        command = [sys.executable, "-m", f"remote_ckpt.cli.{module}", *arguments]
        with (home / "stdout").open("wb") as stdout, (home / "stderr").open("wb") as stderr:
            process = subprocess.Popen(command, env={**os.environ, **environment, **own}, stdout=stdout, stderr=stderr)
        return cls(process, home)

    @contextmanager
    def until_its_end(self) -> Iterator[None]:
        """End the process after the block, also after an error; wait for its end."""
        try:
            yield
        finally:
            if self.process.poll() is None:
                self.process.terminate()
            self.process.wait()

    def answer(self, doing: str) -> str:
        """Return the output of the ended process.

        Raises:
            DemoError: The process failed; the message ends with its stderr.
        """
        if self.process.returncode:
            said = (self.home / "stderr").read_text(errors="replace")[-_TAIL:]
            raise DemoError(f"{doing} failed with exit code {self.process.returncode}. It said:\n{said}")
        return (self.home / "stdout").read_text().strip()


def _watch(trainer: subprocess.Popen[bytes], run: Run) -> None:
    """Print each new checkpoint in the bucket until training ends. Reads only the bucket, not the trainer's output."""
    begun, seen = time.monotonic(), {record.id for record in run.checkpoints}
    while True:
        ended = trainer.poll() is not None  # before the look, so that the last commit of the trainer is printed too
        for record in run.checkpoints:
            if record.id not in seen:
                seen.add(record.id)
                _tell_arrival(record, time.monotonic() - begun)
        if ended:
            return
        time.sleep(_LOOK)


def _tell_arrival(record: Checkpoint, seconds: float) -> None:
    say(
        f"  {seconds:5.1f} s  in the bucket: {record.key} ({human_bytes(record.size)}, accuracy {number(record.score)})"
    )


def _compare(answer: dict[str, Any]) -> None:
    checkpoint, found = answer["checkpoint"], answer["accuracy"]
    recorded = checkpoint["score"]
    say(f"  loaded {checkpoint['url']} (epoch {checkpoint['epoch']})")
    say(f"  accuracy recorded while training: {recorded:.6f}")
    say(f"  accuracy of the restored model:   {found:.6f}")
    if not abs(found - recorded) <= _EQUAL:
        raise DemoError("The restored model is not the one that was saved.")
    say("Equal: the best model of one machine is running on another.", style="green")


def _wait(environment: Mapping[str, str], url: str) -> None:
    say("\nThe server stays until Ctrl-C. In another terminal:")
    for name, value in environment.items():
        say(f"  export {name}={value}")
    say(f"  remote-ckpt ls {url}")
    with suppress(KeyboardInterrupt):  # Ctrl-C is the way to stop the server here, not an error
        signal.pause()
