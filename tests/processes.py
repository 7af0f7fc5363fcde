"""Programs in processes of their own; one that hangs says where."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from waiting import HANG


def finish(
    command: Sequence[object], *, timeout: float = HANG, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a Python program to its end and return what it said, whatever its exit status.

    Past `timeout` seconds it is aborted, and what it then tells is in the error: the stack of each of its threads.
    """
    environment = {**os.environ, **(env or {}), "PYTHONFAULTHANDLER": "1"}
    arguments = [str(part) for part in command]
    with subprocess.Popen(
        arguments, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            try:
                out, err = process.communicate(timeout=10)
            except subprocess.TimeoutExpired:  # a program of its own holds the pipes
                out, err = "", "and what it started hangs too"
            raise AssertionError(f"{arguments} hung for {timeout} s\n{out[-2000:]}\n{err[-8000:]}") from None
        except BaseException:
            process.kill()
            raise
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)
