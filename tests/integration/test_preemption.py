"""`PreemptionGuard`: what it hears, and that it swallows no signal."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from metadata_server import metadata_server

from remote_ckpt import PreemptionGuard
from remote_ckpt.preemption.notices import EC2_SECONDS, GCE_SECONDS, Ec2, Gce


@pytest.fixture
def metadata():
    with metadata_server() as server:
        yield server


@pytest.fixture
def term():
    """A handler that was there before; what it was told. Signals of a test never end the tests."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    yield heard
    signal.signal(signal.SIGTERM, before)


class User:
    """Somebody who listens."""


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def guard(**options):
    return PreemptionGuard(**{"ec2": False, "gce": False, "poll": 0.05, **options})


def test_ec2_is_asked_with_a_token(metadata):
    """The notice's own time counts."""
    cloud = Ec2(metadata.url)
    assert cloud.look() is None
    metadata.interrupt(60)
    notice = cloud.look()
    assert notice.source == "EC2 spot interruption notice"
    assert 55 < notice.seconds_left <= 60


def test_an_expired_token_of_ec2_is_renewed(metadata):
    """Six hours pass in many trainings."""
    cloud = Ec2(metadata.url)
    cloud.look()
    metadata.tokens.clear()
    metadata.interrupt()
    assert cloud.look() is not None


NO_NOTICES = [
    b"\xff not json",
    b"<html>Welcome to the airport's network</html>",
    b"null",
    b"[]",
    b"true",
    b"{}",
    b'{"action": "terminate"}',
    b'{"action": "terminate", "time": "soon"}',
    b'{"action": "terminate", "time": null}',
    b'{"action": "celebrate", "time": "2026-01-01T08:22:00Z"}',
    b'{"time": "2026-01-01T08:22:00Z"}',
    b"[" * 4000,
]


@pytest.mark.parametrize("answer", NO_NOTICES)
def test_what_is_no_notice_ends_no_training(metadata, answer):
    """Only a JSON object with an action that EC2 has, and a time."""
    metadata.action = answer
    with pytest.raises(OSError, match=r"no notice|no action|no time"):
        Ec2(metadata.url).look()


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
def test_each_action_of_ec2_is_a_notice(metadata, action):
    """The machine is gone after any of them."""
    metadata.action = json.dumps({"action": action, "time": "2099-01-01T08:22:00Z"}).encode()
    assert Ec2(metadata.url).look().seconds_left == pytest.approx(EC2_SECONDS, abs=5)


@pytest.mark.parametrize(
    "portal",
    [
        (200, {}, b"<html>Please sign in</html>"),
        (200, {"Metadata-Flavor": "Google"}, b"<html>Please sign in</html>"),
        (200, {"Metadata-Flavor": "Google"}, b"null"),
        (200, {}, b"x" * 100_000),
        (302, {"Location": "http://127.0.0.1:9/login"}, b""),
    ],
)
@pytest.mark.parametrize("cloud", [Ec2, Gce])
def test_a_captive_portal_is_no_cloud(metadata, cloud, portal):
    """It answers everything, with a page for people."""
    metadata.portal = portal
    with pytest.raises((OSError, ValueError)):
        cloud(metadata.url).look()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("cloud", [Ec2, Gce])
def test_a_metadata_servers_redirect_is_not_followed(metadata, cloud, status):
    """It would take the token along, and whoever it names would decide about this training."""
    with metadata_server() as other:
        other.preempt()
        other.interrupt()
        metadata.portal = (status, {"Location": f"{other.url}/computeMetadata/v1/instance/preempted"}, b"")
        with pytest.raises(OSError, match=str(status)):
            cloud(metadata.url).look()
        assert (other.asked, other.tokens) == ([], set())


def test_a_rebalance_recommendation_is_a_notice_for_who_wants_it(metadata):
    """It comes earlier than the interruption, or instead of it."""
    metadata.rebalance = True
    assert Ec2(metadata.url).look() is None
    assert Ec2(metadata.url, rebalance=True).look().source == "EC2 rebalance recommendation"


def test_compute_engine_is_asked(metadata):
    """With the header that it insists on."""
    assert Gce(metadata.url).look() is None
    metadata.preempt()
    assert Gce(metadata.url).look().seconds_left == pytest.approx(GCE_SECONDS, abs=5)


def test_somebody_else_at_compute_engines_address_is_not_believed(metadata):
    """Only the header in the answer says who it is; EC2's server has the same address."""
    with pytest.raises(OSError, match=r"no metadata server|404"):
        Gce(f"{metadata.url}/elsewhere").look()


@pytest.mark.parametrize("cloud", ["ec2", "gce"])
def test_a_guard_hears_of_it(metadata, cloud):
    """On its own thread, while training goes on."""
    listening, user = guard(**{cloud: metadata.url}), User()
    listening.start(user)
    assert listening.notice is None
    metadata.interrupt()
    metadata.preempt()
    wait_for(lambda: listening.notice)
    listening.stop(user)
    assert {"ec2": "EC2", "gce": "Compute Engine"}[cloud] in listening.notice.source


def test_the_usual_variables_say_where_to_ask(metadata, monkeypatch):
    """And whether to ask at all."""
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    monkeypatch.delenv("NO_GCE_CHECK", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
    monkeypatch.setenv("GCE_METADATA_HOST", metadata.url.removeprefix("http://"))
    assert [cloud.endpoint for cloud in PreemptionGuard()._clouds] == [metadata.url, metadata.url]
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    assert PreemptionGuard()._clouds == []


def test_off_cloud_nobody_is_asked_for_long(metadata, caplog):
    """Three times, and it is told at debug."""
    caplog.set_level(logging.DEBUG, "remote_ckpt")
    listening, user = guard(gce=f"{metadata.url}/nobody"), User()
    listening.start(user)
    wait_for(lambda: "is not asked again" in caplog.text)
    asked = len(metadata.asked)
    time.sleep(0.3)
    listening.stop(user)
    assert asked == len(metadata.asked) == 3


def test_a_proxy_is_never_asked(metadata, monkeypatch):
    """The metadata server is on this host; a proxy is not."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert Gce(metadata.url).look() is None


@pytest.mark.parametrize("wrong", [{"grace": 0}, {"poll": -1}, {"ec2": "file:///etc/passwd"}, {"gce": "metadata"}])
def test_what_makes_no_sense_is_refused(wrong):
    """Before training."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PreemptionGuard(**wrong)


def test_a_signal_is_a_notice_and_is_raised_again_at_the_end(term):
    """With the handler that was there before."""
    listening, user = guard(grace=20), User()
    listening.start(user)
    os.kill(os.getpid(), signal.SIGTERM)
    wait_for(lambda: listening.notice)
    assert listening.notice.source == "SIGTERM"
    assert 15 < listening.notice.seconds_left <= 20
    assert term == []
    listening.stop(user)
    wait_for(lambda: term)
    assert term == [signal.SIGTERM]


def test_a_signal_is_kept_from_the_process_when_asked(term):
    """`reraise=False`; the handler from before is back all the same."""
    listening, user = guard(reraise=False), User()
    listening.start(user)
    os.kill(os.getpid(), signal.SIGTERM)
    wait_for(lambda: listening.notice)
    listening.stop(user)
    assert term == []
    os.kill(os.getpid(), signal.SIGTERM)
    wait_for(lambda: term)


def test_a_second_signal_is_not_held_up(term):
    """Whoever sends it is in earnest."""
    listening, user = guard(grace=60), User()
    listening.start(user)
    os.kill(os.getpid(), signal.SIGTERM)
    wait_for(lambda: listening.notice)
    os.kill(os.getpid(), signal.SIGTERM)
    wait_for(lambda: term)
    listening.stop(user)
    assert term == [signal.SIGTERM]


def test_a_training_that_hangs_ends_when_the_time_is_over(term):
    """Nobody calls `stop`; the same happens after an exception."""
    listening, user = guard(grace=0.3), User()
    listening.start(user)
    os.kill(os.getpid(), signal.SIGTERM)
    wait_for(lambda: term)
    time.sleep(0.3)
    assert term == [signal.SIGTERM]
    listening._stopped.set()


def test_a_signal_after_the_listener_is_gone_is_not_swallowed(term):
    """It was garbage, and never said that it had stopped."""
    listening, user = guard(), User()
    listening.start(user)
    del user
    os.kill(os.getpid(), signal.SIGTERM)
    wait_for(lambda: term)
    assert listening.notice is None
    listening._stopped.set()


def test_outside_the_main_thread_signals_are_left_alone(term):
    """Python installs handlers only there."""
    listening, user = guard(), User()
    thread = threading.Thread(target=lambda: listening.start(user))
    thread.start()
    thread.join()
    os.kill(os.getpid(), signal.SIGTERM)
    wait_for(lambda: term)
    assert listening.notice is None
    listening.stop(user)


def test_two_who_share_a_guard_are_both_waited_for(term):
    """The signal is raised again after the last."""
    listening, one, other = guard(), User(), User()
    listening.start(one)
    listening.start(other)
    os.kill(os.getpid(), signal.SIGTERM)
    wait_for(lambda: listening.notice)
    listening.stop(one)
    assert term == []
    listening.stop(other)
    wait_for(lambda: term)


def test_no_thread_outlives_training():
    """However often it begins."""
    listening, user = guard(), User()
    for _ in range(3):
        listening.start(user)
        listening.stop(user)
    wait_for(lambda: not [t for t in threading.enumerate() if t.name == "remote_ckpt-preemption"])


def test_without_a_handler_before_the_process_dies_of_the_signal():
    """As it would have without a guard."""
    program = """
import os, signal
from remote_ckpt import PreemptionGuard
class User: pass
guard, user = PreemptionGuard(ec2=False, gce=False), User()
guard.start(user)
os.kill(os.getpid(), signal.SIGTERM)
print(guard.notice.source)
guard.stop(user)
print("never")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "SIGTERM\n"), done.stderr
