"""The walkthrough of the docs as a program: `python tests/walkthrough.py` runs it and writes what it really says.

Each line of a ```console block that begins with `$ ` is a command; all of a page run in one shell, in order, with a
server's credentials in the environment. What follows a command is its output.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "walkthrough.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "\x01"
GREETING = re.compile(r"WARNING: All log messages before absl|[IW]\d{4} \d\d[:\d.]+ |[IW]0000 00:00:")
"""What TensorFlow says of itself, on stderr, at each start."""
LONGEST = 14
"""Lines of one command's output that the page shows."""


def commands(page: str) -> list[tuple[str, list[str]]]:
    """Return each command and the lines of output that the page shows for it."""
    found: list[tuple[str, list[str]]] = []
    for block in BLOCK.findall(page):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def walk(lines: list[str], folder: Path, environment: Mapping[str, str]) -> list[list[str]]:
    """Run commands as a person would in a clone, and return what each one said.

    Raises:
        AssertionError: One of them failed.
    """
    (folder / "examples").symlink_to(ROOT / "examples")
    script = "trap 'kill $(jobs -p) 2> /dev/null' EXIT\n" + "".join(
        f"printf '{MARK}%s\\n' '{number}'\n{line}\nstatus=$?; [ $status = 0 ] || exit $status\n"
        for number, line in enumerate(lines)
    )
    place = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "REMOTE_CKPT_SPOOL": str(folder / "spool"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "COLUMNS": "100",
    }
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env={**os.environ, **place, **environment}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=280, check=False,
    )  # fmt: skip
    text = done.stdout.replace(str(folder), "~").replace(socket.gethostname(), "my-machine")
    said = [[line.rstrip() for line in part.splitlines()[1:]] for part in text.split(MARK)[1:]]
    assert done.returncode == 0, f"{lines[len(said) - 1]}\n" + "\n".join(said[-1])
    return [[line for line in part if not GREETING.match(line)] for part in said]


def masked(line: str) -> str:
    """Return a line without what differs from walk to walk: numbers and their units, ids, widths."""
    line = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b|\b[\w+/]{6}==", "ID", line)
    line = re.sub(r"[-+]?\d[\d.:,]*(e-?\d+)?( (µs|ms|s|min|h)\b| [kMG]?B\b)?", "0", line)
    return re.sub(r"[\s─━┃│]+", " ", line).strip()


def shorten(lines: list[str]) -> list[str]:
    """Return the beginning and the end of a long output."""
    while lines and not lines[0]:
        lines = lines[1:]
    while lines and not lines[-1]:
        lines = lines[:-1]
    if len(lines) <= LONGEST:
        return lines
    half = LONGEST // 2
    return [*lines[:half], "…", *lines[-half:]]


def main() -> None:
    """Walk, and put the real output into the page."""
    import tempfile

    from remote_ckpt.testing.servers import start

    page = PAGE.read_text()
    with start("seaweedfs") as server, tempfile.TemporaryDirectory() as folder:
        said = iter(walk([command for command, _ in commands(page)], Path(folder), server.environment))

    def fill(block: re.Match[str]) -> str:
        lines = []
        for line in block[1].splitlines():
            if line.startswith("$ "):
                lines += [line, *shorten(next(said))]
        return "\n".join(["```console", *lines, "```"])

    PAGE.write_text(BLOCK.sub(fill, page))


if __name__ == "__main__":
    main()
