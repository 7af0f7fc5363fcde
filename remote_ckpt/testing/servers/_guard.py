"""Run a server until standard input closes; then end it and remove what it left on disk.

A script of its own, started with the bare interpreter: ``python -I -S _guard.py [--remove PATH]... -- COMMAND...``

The starter holds the other end of standard input and never writes to it. When it closes the pipe, or dies in
whatever way (the kernel closes the pipe then), this process sees the end of the file. Linux's PR_SET_PDEATHSIG would
do without a second process, but it fires when the starting *thread* ends, and needs a hook between fork and exec,
which is unsafe in a process with threads.

The server leads a session of its own, so that its children are in the group that is killed. It gets SIGKILL at once:
its data is thrown away anyway.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path


def main() -> int:
    """Return the server's exit status, after it has ended and its leftovers are removed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--remove", action="append", default=[], type=Path)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    try:
        server = subprocess.Popen(arguments.command, stdin=subprocess.DEVNULL, start_new_session=True)
        threading.Thread(target=_kill_when_abandoned, args=(server.pid,), daemon=True).start()
        # WNOWAIT keeps the ended leader as a zombie, so that its number still means this group and no other.
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        _kill_group(server.pid)
        return server.wait()
    finally:
        for path in arguments.remove:
            remove(path)


def _kill_when_abandoned(group: int) -> None:
    os.read(0, 1)  # not through sys.stdin: its lock, held by this thread, would abort the interpreter at its end
    _kill_group(group)


def _kill_group(group: int) -> None:
    # macOS answers EPERM where only a zombie is left in the group.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def remove(path: Path) -> None:
    """Remove a file or a folder, as far as it is there and lets itself be removed."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())
