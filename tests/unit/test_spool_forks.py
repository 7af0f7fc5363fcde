"""A process that forks (a data loader does) and its spool: the lock is the parent's alone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from remote_ckpt.location import Location
from remote_ckpt.saving.spool import Spool

RUN = Location.parse("s3://bucket/run")
ROOT = Path(__file__).parents[2]

PARENT = """
import gc, os, signal, sys
sys.path.insert(0, sys.argv[2])
from records import seal
from remote_ckpt.location import Location
from remote_ckpt.saving.spool import Spool
spool = Spool(Location.parse("s3://bucket/run"), sys.argv[1])
seal(spool, 1)
ready, forked = os.pipe()
child = os.fork()
if child == 0:
    {child}
{parent}
"""

ENDS = {
    "it collects what it inherited": "del spool; gc.collect(); os._exit(0)",
    "it lets go of what it inherited": "spool._own.lock.release(force=True); os._exit(0)",
    "its interpreter ends": "sys.exit(0)",
}


def start(folder: Path, child: str, parent: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PARENT.format(child=child, parent=parent), str(folder), str(ROOT / "tests")]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("end", ENDS)
def test_a_forked_childs_end_does_not_free_its_parents_spool(tmp_path: Path, end: str) -> None:
    """Another process would take the parent for dead, and its checkpoints away from it."""
    with start(tmp_path, ENDS[end], "os.waitpid(child, 0); print('forked', flush=True); sys.stdin.read()") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "forked\n"
        assert Spool(RUN, tmp_path).adopt() == []
        process.kill()


def test_a_forked_child_that_lives_on_does_not_hold_its_dead_parents_spool(tmp_path: Path) -> None:
    """What the parent left is recovered though its data loader's workers are still there."""
    child = "os.close(1); os.write(forked, b'x'); sys.stdin.read(); os._exit(0)"
    parent = "os.read(ready, 1); print(child, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    with start(tmp_path, child, parent) as process:
        assert process.stdout is not None
        orphan = int(process.stdout.readline())
        assert process.wait() == -signal.SIGKILL
        os.kill(orphan, 0)
        spool = Spool(RUN, tmp_path)
        assert [entry.record.id for entry in spool.adopt()] == ["id1"]
        spool.close()


def test_no_older_filelock_is_taken() -> None:
    """3.29.7 fails each of the facts above; 3.30.0 closes inherited descriptors in the child."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (floor,) = re.findall(r'"filelock>=(\d+)\.(\d+)"', text)
    assert tuple(map(int, floor)) >= (3, 30)
