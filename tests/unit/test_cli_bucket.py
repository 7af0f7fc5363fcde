"""The command line on a real bucket, and what it says when that cannot be reached."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from remote_ckpt.cli._app import app


def invoke(*arguments):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments])


def flags(options):
    """fsspec's storage_options as a user types them."""
    words = []
    for name, value in options.items():
        inner = value.items() if isinstance(value, dict) else ((None, value),)
        words += [word for last, one in inner for word in ("-O", f"{name}.{last}={one}" if last else f"{name}={one}")]
    return words


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.weights.h5"
    with h5py.File(path, "w") as made:
        made.create_dataset("layers/dense/vars/0", data=np.zeros(8, "float32"))
    return path


def test_the_whole_way_of_a_file_into_a_bucket_and_back(get_server, prefix, file, tmp_path):
    """Push, look, follow, fetch into a pipe, tidy up."""
    server = get_server("seaweedfs")
    url, words = server.url(prefix), flags(server.storage_options)
    for epoch, score in (("1", "0.5"), ("2", "0.25"), ("3", "0.75")):
        assert invoke("push", file, url, "--score", score, "--epoch", epoch, *words).exit_code == 0
    shown = invoke("show", url, *words).stdout
    assert f"aws s3 cp --endpoint-url {server.endpoint} {url}/pushed-02.weights.h5 ." in shown
    assert "3 checkpoints, 2 improvements" in invoke("watch", url, "--once", *words).stdout
    command = [sys.executable, "-m", "remote_ckpt.cli", "pull", url, "-o", "-", *words]
    assert subprocess.run(command, capture_output=True).stdout == file.read_bytes()
    dry = json.loads(invoke("prune", url, "--keep-best", "1", "--dry-run", "--json", *words).stdout)
    wet = json.loads(invoke("prune", url, "--keep-best", "1", "--json", *words).stdout)
    assert [record["epoch"] for record in dry["deleted"]] == [record["epoch"] for record in wet["deleted"]] == [1]
    assert invoke("verify", url, *words).exit_code == 0


@pytest.mark.parametrize("command", ["ls", "show", "pull", "push", "watch", "verify", "prune", "sweep"])
def test_a_typo_in_the_bucket_is_one_line(get_server, file, command):
    """Never taken for a run that holds nothing yet, nor waited for."""
    more = {"push": ["--score", "1"], "prune": ["--keep-best", "1"]}.get(command, [])
    before = [file] if command == "push" else []
    words = flags(get_server("seaweedfs").storage_options)
    result = invoke(command, *before, "s3://no-such-bucket-here/run", *more, *words)
    (told,) = (line for line in result.stderr.splitlines() if not line.startswith("remote-ckpt: watching "))
    assert result.exit_code == 1
    assert told.endswith("the bucket does not exist. Create it, or correct its name.")


def test_wrong_and_missing_credentials_are_told_apart(get_server, prefix):
    """And never shown."""
    server = get_server("seaweedfs")
    wrong = invoke("ls", server.url(prefix), *flags({**server.storage_options, "secret": "hunter2"}))
    none = invoke("ls", server.url(prefix), "-O", f"endpoint_url={server.endpoint}")
    assert (wrong.exit_code, none.exit_code) == (1, 1)
    assert "the access key or its secret is wrong" in wrong.stderr
    assert "hunter2" not in wrong.stderr
    assert "no usable credentials were found. Set AWS_ACCESS_KEY_ID" in none.stderr


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s4://bucket/run", "s3://"),
        ("s3:/bucket/run", "write 's3://…'"),
        ("s3:///run", "names no bucket"),
        ("", "Expected a URL or a path"),
    ],
)
def test_a_wrong_url_is_told_with_a_right_one(url, told):
    """In one line."""
    result = invoke("ls", url)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert told in result.stderr


def test_a_file_is_told_from_a_run(file, get_server, prefix):
    """On this machine, and in a bucket, where the message says how to name the checkpoint."""
    server = get_server("seaweedfs")
    words = flags(server.storage_options)
    assert "is a file, not a run" in invoke("ls", file).stderr
    url = json.loads(invoke("push", file, server.url(prefix), "--score", "1", "--json", *words).stdout)["url"]
    assert f"is one checkpoint of {server.url(prefix)}. Name the run" in invoke("pull", url, *words).stderr
    assert Path(file).is_file()
