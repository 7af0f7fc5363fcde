"""A machine is taken away and another one goes on: the training is the one that was never interrupted."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from metadata_server import metadata_server
from processes import finish

from remote_ckpt import Run

PROGRAM = Path(__file__).with_name("spot_programs.py")
NAMED = "w-{epoch:02d}-{val_loss:.3f}.weights.h5"


@pytest.fixture(scope="module")
def metadata():
    with metadata_server() as server:
        yield server


def train(server, url, machine, *arguments):
    """Train on a machine of its own: nothing on its disk comes from another one."""
    place = {"REMOTE_CKPT_SPOOL": str(machine / "spool"), "XDG_CACHE_HOME": str(machine / "cache")}
    path = os.pathsep.join([str(PROGRAM.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**server.environment, **place, "PYTHONPATH": path}
    return finish([sys.executable, PROGRAM, url, *arguments], env=environment)


def facts_of(done):
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def whole(get_server, tmp_path_factory):
    """What the uninterrupted training says, and the server it saved to."""
    server, place = get_server("seaweedfs"), tmp_path_factory.mktemp("whole")
    facts = facts_of(train(server, server.url(f"{place.name}-{os.getpid()}/{NAMED}"), place, -1, "epoch"))
    assert facts["resumed"] is None
    return server, facts


@pytest.mark.slow
def test_the_uninterrupted_training_is_worth_comparing_with(whole):
    """It stops early, restores earlier weights, and its learning rate rises and falls."""
    _, facts = whole
    assert 5 < len(facts["epochs"]) < 12
    _, _, best_epoch, stopped_epoch = facts["stopping"]
    assert best_epoch < stopped_epoch == facts["epochs"][-1]
    assert len(set(facts["history"]["learning_rate"])) > 2


@pytest.mark.slow
@pytest.mark.parametrize("notice", ["sigterm", "ec2", "gce"])
def test_a_notice_at_an_epochs_end_changes_nothing(whole, metadata, prefix, tmp_path, notice):
    """Loss curves, learning rates, EarlyStopping, its best weights and the final weights: all equal, to the bit."""
    server, expected = whole
    url = server.url(f"{prefix}/{NAMED}")
    metadata.action, metadata.preempted = None, False
    decision = {"sigterm": (), "ec2": (metadata.url, "interrupt"), "gce": (metadata.url, "preempt")}[notice]
    first = train(server, url, tmp_path / "first", 3, "epoch", *decision)
    assert "Saving epoch 4, and" in first.stderr, first.stderr[-3000:]
    assert f"All that was saved is in {server.url(prefix)}" in first.stderr
    if notice == "sigterm":
        assert first.returncode == -signal.SIGTERM
        assert first.stdout == ""
    else:
        told = facts_of(first)
        assert told["epochs"] == [0, 1, 2, 3]
        assert told["preempted"].startswith({"ec2": "EC2", "gce": "Compute Engine"}[notice])
    metadata.action, metadata.preempted = None, False
    second = facts_of(train(server, url, tmp_path / "second", -1, "epoch"))
    assert second.pop("resumed") == [3, None]
    assert second == {name: value for name, value in expected.items() if name != "resumed"}


@pytest.mark.slow
def test_a_notice_inside_an_epoch_repeats_that_epoch(whole, prefix, tmp_path):
    """What was before it is the same; its own batches are trained again, on top of those before the notice."""
    server, expected = whole
    url = server.url(f"{prefix}/{NAMED}")
    first = train(server, url, tmp_path / "first", 3, "batch")
    assert first.returncode == -signal.SIGTERM, first.stderr[-3000:]
    assert "Saving epoch 4, batch 2, and" in first.stderr
    latest = Run(server.url(prefix), storage_options=server.storage_options).latest
    assert (latest.epoch, latest.batch, latest.score) == (3, 1, None)
    assert latest.key == "w-04-nan.weights.h5"
    second = facts_of(train(server, url, tmp_path / "second", -1, "epoch"))
    assert second["resumed"] == [3, 1]
    assert second["epochs"] == list(range(len(second["epochs"])))
    for name, curve in expected["history"].items():
        assert second["history"][name][:3] == curve[:3]
    assert second["history"]["learning_rate"][3] == expected["history"]["learning_rate"][3]
    assert second["history"]["loss"][3] < expected["history"]["loss"][3]
