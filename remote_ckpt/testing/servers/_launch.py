"""From a command to a process that answers."""

from __future__ import annotations

import shutil
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from remote_ckpt.testing.servers._errors import ServerStartError
from remote_ckpt.testing.servers._ports import free_ports, is_free
from remote_ckpt.testing.servers._process import ServerProcess

_POLL_SECONDS = 0.1


class NotReadyError(Exception):
    """A server that does not answer as it should, yet."""


@dataclass(frozen=True)
class Command:
    """What to run: program and arguments, variables to add, and files that it leaves outside its directory."""

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    leftovers: Sequence[Path] = ()


def launch(
    name: str, prepare: Callable[[Path], Command], ready: Callable[[], None], *, timeout: float, hint: str
) -> ServerProcess:
    """Start a server in a fresh directory and wait until it is ready.

    Args:
        name: For the error message.
        prepare: Fills the directory and says what to run in it.
        ready: Raises `NotReadyError` until the server works.
        timeout: How long to wait for that, in seconds.
        hint: How to install the server, for the error message.

    Raises:
        ServerStartError: It ended, or was not ready in time. Nothing is left of it.
    """
    directory = Path(tempfile.mkdtemp(prefix=f"remote_ckpt-{name}-"))
    try:
        command = prepare(directory)
        process = ServerProcess(
            command.argv, directory=directory, environment=command.environment, leftovers=command.leftovers
        )
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    try:
        _wait(name, process, ready, timeout=timeout, hint=hint)
    except BaseException:
        process.stop()
        raise
    return process


def _wait(name: str, process: ServerProcess, ready: Callable[[], None], *, timeout: float, hint: str) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            return ready()
        except NotReadyError as error:
            reason = f"not ready after {timeout:g} seconds ({error})"
        if process.exit_status is not None:
            reason = f"it ended with status {process.exit_status}"
        elif time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            continue
        raise ServerStartError(name, reason, hint=hint, log=process.log_tail())


def find_program(name: str, program: str, *, hint: str) -> str:
    """Return the path of `program`: beside this interpreter first, then on PATH.

    Raises:
        ServerStartError: It is in neither place.
    """
    found = shutil.which(program, path=sysconfig.get_path("scripts")) or shutil.which(program)
    if found is None:
        raise ServerStartError(name, f"there is no program {program!r}", hint=hint)
    return found


def choose_port(name: str, port: int | None) -> int:
    """Return `port`, or a free one for None.

    Raises:
        ServerStartError: `port` is taken.
    """
    if port is None:
        return free_ports(1)[0]
    if not is_free(port):
        raise ServerStartError(name, f"something else listens on port {port}", hint="Choose another port.")
    return port
