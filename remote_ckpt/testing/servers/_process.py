"""A server's process, tied to the life of this one, and its log."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from remote_ckpt.testing.servers._guard import remove

_GUARD = Path(__file__).with_name("_guard.py")
_STOP_SECONDS = 30.0

# What a server may know of our environment. Not HOME and not AWS_*: it shall depend on nothing of the user's.
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")


class ServerProcess:
    """A command that runs in `directory`, until `stop` or until this process ends, whichever comes first.

    Both the command's HOME and TMPDIR are `directory`. A child made by `os.fork` shares the tie: while it lives, the
    server survives our death (not `stop`).
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        directory: Path,
        environment: Mapping[str, str],
        leftovers: Sequence[Path] = (),
    ) -> None:
        """Start `command`.

        Args:
            command: The program and its arguments.
            directory: Its working directory; removed when it has ended.
            environment: Added to the few variables it inherits.
            leftovers: Files it makes elsewhere; removed when it has ended.
        """
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        self._files = (directory, *leftovers)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process, has no name to leave behind
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_GUARD), *(f"--remove={path}" for path in self._files), "--", *command],
            cwd=directory,
            env={**inherited, "HOME": str(directory), "TMPDIR": str(directory), **environment},
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process that guards the command, its parent."""
        return self._guard.pid

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything it has on disk: its directory, and what it made elsewhere."""
        return self._files

    @property
    def exit_status(self) -> int | None:
        """The command's exit status, or None while it runs."""
        return self._guard.poll()

    def log_tail(self, size: int = 2000) -> str:
        """Return the last `size` bytes of what the command has printed, or nothing after `stop`."""
        if self._log.closed:
            return ""
        end = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, max(0, end - size)).decode(errors="replace").strip()

    def stop(self) -> None:
        """End the command and its children, wait for them, remove their files. Repeating changes nothing.

        Raises:
            subprocess.TimeoutExpired: They did not end within 30 seconds of SIGKILL.
        """
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(_STOP_SECONDS)
        for path in self._files:
            remove(path)  # again: the guard may have been killed itself
        self._log.close()
