"""Several processes, killed processes, processes that end early: nothing is lost."""

from __future__ import annotations

import hashlib
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tcp_proxy import RESET, tcp_proxy
from waiting import HANG

from remote_ckpt.errors import ObjectNotFoundError
from remote_ckpt.run import Run
from remote_ckpt.testing.servers import MANY_WRITERS

PROGRAMS = Path(__file__).parents[1] / "programs.py"


def start(server, *arguments, **environment):
    patient = {"REMOTE_CKPT_EXIT_TIMEOUT": str(HANG)}
    return subprocess.Popen(
        [sys.executable, str(PROGRAMS), *map(str, arguments)],
        env={**os.environ, **patient, **(server.environment if server else {}), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, timeout=HANG):
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err[-3000:]
    return out


def options(server):
    return {"storage_options": server.storage_options} if server else {}


@pytest.fixture
def place(request, get_server, prefix, tmp_path):
    """A run's URL and the server it lives on; a local folder has none."""
    if request.param == "local":
        return str(tmp_path / "run"), None
    server = get_server(request.param)
    return server.url(prefix), server


@pytest.mark.slow
@pytest.mark.parametrize("place", ["local", *MANY_WRITERS], indirect=True)
def test_a_counter_of_eight_processes_loses_no_increment(place):
    """50 each: compare-and-swap holds on every store whose conditions are atomic."""
    url, server = place
    assert Run(url, **options(server)).store.probe().many_writers
    for process in [start(server, "count", url, 50) for _ in range(8)]:
        finish(process)
    assert Run(url, **options(server)).store.read("counter", limit=100)[0] == b"400"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["local", "seaweedfs", "fake_gcs"], indirect=True)
def test_two_writers_and_a_reader_on_one_run(place):
    """The best is the true best, what is named is there with its digest, and no reader saw it get worse."""
    url, server = place
    reader = start(server, "look", url, 5)
    writers = [start(server, "save_many", url, name, 50) for name in ("a", "b")]
    lines = [line.split() for process in writers for line in finish(process).splitlines()]
    assert "looked" in finish(reader)
    scores = {name: float(score) for name, score in lines}
    assert len(scores) == 100
    run = Run(url, **options(server))
    series = next(iter(run.series.values()))
    assert {entry.id for entry in series.history} == set(scores)
    true_best = min(score for score in scores.values() if not math.isnan(score))
    assert run.best.score == scores[run.best.id] == true_best
    assert all(verdict.problem is None for verdict in run.verify())
    assert {found.key for found in run.store.scan() if found.key.endswith(".h5")} == {c.key for c in run.checkpoints}


@pytest.mark.parametrize("place", ["seaweedfs", "fake_gcs"], indirect=True)
def test_a_process_killed_while_it_uploads_is_finished_by_the_next(place, own_spool):
    """The bucket is readable all the time, and nothing partial is in it."""
    url, server = place
    process = start(server, "seal_and_hang", url, 40 << 20)
    digest = process.stdout.readline().split()[1]
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    run = Run(url, **options(server))
    assert run.checkpoints == []
    with pytest.raises(ObjectNotFoundError):
        run.store.stat("w-01.weights.h5")
    assert [entry.record.sha256 for entry in run.pending()] == [digest]
    assert [record.sha256 for record in run.recover()] == [digest]
    assert run.pending() == []
    assert all(verdict.problem is None for verdict in run.verify())
    assert run.pull("best").stat().st_size == 40 << 20


@pytest.mark.parametrize("place", ["seaweedfs"], indirect=True)
@pytest.mark.parametrize(("how", "code"), [("exception", 1), ("ctrl-c", None), ("sys.exit", 3)])
def test_an_interpreter_that_ends_early_drains_first(place, how, code):
    """Uploads at interpreter shutdown fail silently unless care is taken."""
    url, server = place
    process = start(server, "train_and_end", url, how)
    _, err = process.communicate(timeout=HANG)
    assert process.returncode == code if code is not None else process.returncode != 0, err[-2000:]
    run = Run(url, **options(server))
    assert [record.epoch for record in run.checkpoints] == [0, 1], err[-2000:]
    assert all(verdict.problem is None for verdict in run.verify())


@pytest.mark.parametrize("place", ["seaweedfs"], indirect=True)
def test_an_exit_without_a_bucket_says_what_is_left_and_how_to_recover(place, own_spool):
    """The server is unreachable from the start; the exit code is the user's own."""
    url, server = place
    with tcp_proxy(server.endpoint) as proxy:
        proxy.trouble = lambda _: RESET
        dead = {"AWS_ENDPOINT_URL": proxy.endpoint, "REMOTE_CKPT_EXIT_TIMEOUT": "10"}
        process = start(server, "train_and_end", url, "sys.exit", **dead)
        _, err = process.communicate(timeout=HANG)
        assert process.returncode == 3
        assert "remote-ckpt recover" in err
        proxy.mend()
        run = Run(url, storage_options={**server.storage_options, "endpoint_url": proxy.endpoint})
        assert len(run.recover()) == 2
        run.store.close()


@pytest.mark.parametrize("place", ["seaweedfs"], indirect=True)
def test_the_object_loads_with_plain_boto3_and_plain_keras(place, prefix, tmp_path):
    """No remote_ckpt in that process; its bytes are what `save_weights` writes."""
    from models import fit, model

    from remote_ckpt import RemoteModelCheckpoint

    url, server = place
    trained = model()
    fit(trained, [RemoteModelCheckpoint(f"{url}/w-{{epoch:02d}}.weights.h5", **options(server))], epochs=2)
    trained.save_weights(tmp_path / "keras.weights.h5")
    out = finish(start(server, "plain_load", server.bucket, f"{prefix}/w-02.weights.h5", tmp_path))
    assert out.strip() == hashlib.sha256(b"".join(w.tobytes() for w in trained.get_weights())).hexdigest()
    assert (tmp_path / "got.weights.h5").read_bytes() == (tmp_path / "keras.weights.h5").read_bytes()
