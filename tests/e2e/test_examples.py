"""The examples, run as a reader of them would."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import finish
from waiting import HANG, until

from remote_ckpt import Run

EXAMPLES = Path(__file__).parents[2] / "examples"


def start(name, *arguments, cwd, **environment):
    return python(str(EXAMPLES / f"{name}.py"), *arguments, cwd=cwd, **environment)


def python(*arguments, cwd, **environment):
    done = finish([sys.executable, *arguments], cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["save_improvements", "save_best_only", "custom_training_loop", "spot_instance"])
def test_what_an_example_saves_another_loads(name, tmp_path):
    """In a folder of its own, wherever it is started from."""
    start(name, "--epochs", "3", cwd=tmp_path)
    best = Run(tmp_path / "checkpoints" / "pima").best
    told = start("load_and_predict", cwd=tmp_path)
    assert f"saved after epoch {best.epoch + 1}" in told
    assert re.search(rf"accuracy: {best.score:.2%} \(when it was saved: {best.score:.2%}\)", told)


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_the_examples_take_a_bucket(server, prefix, tmp_path):
    """Credentials come from the environment."""
    url = server.url(prefix)
    start("save_best_only", url, "--epochs", "3", cwd=tmp_path, **server.environment)
    best = Run(url, storage_options=server.storage_options).best
    told = start("load_and_predict", url, cwd=tmp_path, **server.environment)
    assert f"accuracy: {best.score:.2%} (when it was saved: {best.score:.2%})" in told
    assert not (tmp_path / "checkpoints").exists()


def test_a_spot_instance_that_is_taken_away_is_gone_on_with(tmp_path):
    """Killed as the example says; the same command goes on."""
    command = [sys.executable, str(EXAMPLES / "spot_instance.py"), "--epochs", "1000000"]  # it must not end by itself
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as first:
        number = int(first.stdout.readline().removeprefix("training as process "))
        until(lambda: Run(tmp_path / "checkpoints" / "pima").latest or first.poll() is not None)
        os.kill(number, signal.SIGTERM)
        assert first.wait(HANG) == -signal.SIGTERM
    latest = Run(tmp_path / "checkpoints" / "pima").latest
    told = start("spot_instance", "--epochs", str(latest.epoch + 3), cwd=tmp_path)
    assert f"/{latest.key}, saved in epoch {latest.epoch + 1}\n" in told
    assert f"{latest.epoch + 3} epochs, from" in told


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_the_command_line_needs_only_the_environment_too(server, prefix, tmp_path):
    """What an example saved is listed, verified and pulled."""
    url = server.url(prefix)
    start("save_best_only", url, "--epochs", "2", cwd=tmp_path, **server.environment)
    command = ("-m", "remote_ckpt.cli")
    assert "best, latest" in python(*command, "ls", url, cwd=tmp_path, **server.environment)
    assert python(*command, "verify", url, cwd=tmp_path, **server.environment).startswith("ok   epoch ")
    pulled = python(*command, "pull", url, "--to", tmp_path / "here.weights.h5", cwd=tmp_path, **server.environment)
    assert Path(pulled.strip()).read_bytes().startswith(b"\x89HDF")
