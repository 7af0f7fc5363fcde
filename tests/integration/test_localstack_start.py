"""`localstack/start` gives servers that the lines it prints really reach, and ends with them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import HANG

from remote_ckpt.testing.servers.localstack import VENV_DEFAULT

ROOT = Path(__file__).parents[2]
START = ROOT / "localstack" / "start"

WRITE = "import sys, fsspec\nwith fsspec.open(sys.argv[1], 'wb') as file: file.write(b'bytes')"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(params=[[], ["--seaweedfs"]], ids=["localstack", "seaweedfs"])
def started(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    if not (ROOT / VENV_DEFAULT / ".stamp").exists() and os.environ.get("REMOTE_CKPT_REQUIRE_SERVERS") != "1":
        pytest.skip(f"it would download {VENV_DEFAULT}: run scripts/test or localstack/start once")
    command = [str(START), "--port", str(free_port()), "--gcs-port", str(free_port()), *request.param]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    with process:
        yield process
        process.kill()


def read_exports(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    exports = {}
    for line in process.stdout:
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").strip().partition("=")
            exports[name] = value
        if line.startswith("Ctrl-C"):
            break
    return exports


@pytest.mark.slow
def test_its_lines_reach_both_buckets_and_ctrl_c_ends_it(started: subprocess.Popen[str]) -> None:
    exports = read_exports(started)
    assert len(exports) == 6
    for url in ("s3://checkpoints/a", "gs://checkpoints/a"):
        command = [sys.executable, "-c", WRITE, url]
        subprocess.run(command, env={**os.environ, **exports}, check=True, timeout=HANG)
    started.send_signal(signal.SIGINT)
    assert started.wait(timeout=HANG) == 0
    for name in ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST"):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(exports[name].rpartition(":")[2])), timeout=5)
