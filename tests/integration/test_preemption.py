"""`PreemptionGuard`: what it hears, and that it swallows no signal."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from metadata_server import metadata_server
from waiting import HANG, until

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


def guard(**options):
    return PreemptionGuard(**{"ec2": False, "gce": False, "poll": 0.05, **options})


def test_ec2_is_asked_with_a_token(metadata):
    """The notice's own time counts."""
    cloud = Ec2(metadata.url)
    assert cloud.look() is None
    metadata.interrupt(60)
    notice = cloud.look()
    assert notice.source == "EC2 spot interruption notice"
    assert 0 < notice.seconds_left <= 60


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
    assert 0 < Gce(metadata.url).look().seconds_left <= GCE_SECONDS


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
    until(lambda: listening.notice)
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
    until(lambda: "is not asked again" in caplog.text)
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
    listening, user = guard(grace=600), User()
    listening.start(user)
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: listening.notice)
    assert listening.notice.source == "SIGTERM"
    assert 300 < listening.notice.seconds_left <= 600
    assert term == []
    listening.stop(user)
    until(lambda: term)
    assert term == [signal.SIGTERM]


def test_a_signal_is_kept_from_the_process_when_asked(term):
    """`reraise=False`; the handler from before is back all the same."""
    listening, user = guard(reraise=False), User()
    listening.start(user)
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: listening.notice)
    listening.stop(user)
    assert term == []
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: term)


def test_a_second_signal_is_not_held_up(term):
    """Whoever sends it is in earnest."""
    listening, user = guard(grace=60), User()
    listening.start(user)
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: listening.notice)
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: term)
    listening.stop(user)
    assert term == [signal.SIGTERM]


def test_a_training_that_hangs_ends_when_the_time_is_over(term):
    """Nobody calls `stop`; the same happens after an exception."""
    listening, user = guard(grace=0.3), User()
    listening.start(user)
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: term)
    time.sleep(0.3)
    assert term == [signal.SIGTERM]
    listening._stopped.set()


def test_a_signal_after_the_listener_is_gone_is_not_swallowed(term):
    """It was garbage, and never said that it had stopped."""
    listening, user = guard(), User()
    listening.start(user)
    del user
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: term)
    assert listening.notice is None
    listening._stopped.set()


def test_outside_the_main_thread_signals_are_left_alone(term):
    """Python installs handlers only there."""
    listening, user = guard(), User()
    thread = threading.Thread(target=lambda: listening.start(user))
    thread.start()
    thread.join()
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: term)
    assert listening.notice is None
    listening.stop(user)


def test_two_who_share_a_guard_are_both_waited_for(term):
    """The signal is raised again after the last."""
    listening, one, other = guard(), User(), User()
    listening.start(one)
    listening.start(other)
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: listening.notice)
    listening.stop(one)
    assert term == []
    listening.stop(other)
    until(lambda: term)


def test_no_thread_outlives_training():
    """However often it begins."""
    listening, user = guard(), User()
    for _ in range(3):
        listening.start(user)
        listening.stop(user)
    until(lambda: not [t for t in threading.enumerate() if t.name == "remote_ckpt-preemption"])


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
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "SIGTERM\n"), done.stderr


# While the main thread is in native code

NATIVE = """
import hashlib, os, signal, sys, threading
from remote_ckpt import PreemptionGuard
class User: pass
guard, user = PreemptionGuard(ec2=False, gce=False, grace=float(sys.argv[1])), User()
guard.start(user)
def tell():
    while guard.notice is None:
        threading.Event().wait(0.01)
    print(guard.notice.source, flush=True)
threading.Thread(target=tell, daemon=True).start()
print("ready", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)  # half an hour without the interpreter
"""


@pytest.fixture
def native():
    """Starts a program whose main thread is in native code for half an hour, its signals' grace given."""
    started = []

    def start(grace):
        program = [sys.executable, "-c", NATIVE, str(grace)]
        started.append(subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "ready\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_native_code_does_not_keep_a_process_alive_past_its_grace(native):
    """It dies of the signal, as it would have without a guard; and says so."""
    process = native(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGTERM
    assert "has not come back from native code" in err


def test_a_notice_is_heard_while_the_main_thread_is_in_native_code(native):
    """By other threads, at once."""
    process = native(3600)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "SIGTERM\n"
    assert process.poll() is None


def test_a_second_signal_ends_a_process_in_native_code(native):
    """Whoever sends it is in earnest."""
    process = native(3600)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "SIGTERM\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGTERM


def test_a_handler_of_pythons_waits_for_native_code_as_without_a_guard(term):
    """It runs once, when the main thread comes back."""
    listening, user = guard(grace=0.05), User()
    listening.start(user)
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGTERM]).start()
    begun = time.monotonic()
    while not term:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000)
        assert time.monotonic() - begun < 120
    listening.stop(user)
    assert term == [signal.SIGTERM]


# Beside others


def test_an_event_loops_wakeup_descriptor_is_served_and_given_back(term):
    """It hears of signals meanwhile, and is where it was afterwards."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        listening, user = guard(reraise=False), User()
        listening.start(user)
        os.kill(os.getpid(), signal.SIGTERM)
        ours.settimeout(60)
        assert ours.recv(1) == bytes([signal.SIGTERM])
        listening.stop(user)
        assert signal.set_wakeup_fd(-1) == theirs.fileno()
    finally:
        signal.set_wakeup_fd(before)
        ours.close()
        theirs.close()


def test_a_handler_that_was_installed_meanwhile_stays(term):
    """Somebody else's, that calls the one before it."""
    listening, user, heard = guard(), User(), []
    listening.start(user)
    ours = signal.getsignal(signal.SIGTERM)

    def over(number, frame):
        heard.append("over")
        ours(number, frame)

    signal.signal(signal.SIGTERM, over)
    listening.stop(user)
    assert signal.getsignal(signal.SIGTERM) is over
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: term)
    assert (heard, term) == (["over"], [signal.SIGTERM])


def test_a_forked_child_ends_by_a_signal_and_its_parent_hears_nothing():
    """A data loader's worker: it is no training, and must not hang when it is told to end."""
    program = """
import os, signal, time
from remote_ckpt import PreemptionGuard
class User: pass
guard, user = PreemptionGuard(ec2=False, gce=False, grace=3600), User()
guard.start(user)
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.write(writer, b"!")
    time.sleep(3600)
os.read(reader, 1)
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
guard._watch._read(1.0)
print(guard.notice)
guard.stop(user)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, f"{-signal.SIGTERM}\nNone\n"), done.stderr


def test_a_signal_after_a_training_that_is_over_acts_at_once(term):
    """It raised, and nobody called `stop`."""
    listening, user, goes_on = guard(grace=3600), User(), [True]
    listening.start(user, lambda: goes_on[0])
    goes_on[0] = False
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: term)
    assert listening.notice is None


def test_a_signal_held_back_survives_into_the_next_training(term):
    """The first one raised before it looked: the next one learns of it, and ends."""
    listening, user, goes_on = guard(grace=3600), User(), [True]
    listening.start(user, lambda: goes_on[0])
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: listening.notice)
    goes_on[0] = False
    listening.start(user)
    assert listening.notice.source == "SIGTERM"
    listening.stop(user)
    until(lambda: term)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_a_copy_of_a_guard_has_its_settings_and_hears_for_itself(term, copied):
    """Made while the original listens, and has heard."""
    listening, user = guard(grace=7, reraise=False, rebalance=True, ec2="http://127.0.0.1:9"), User()
    listening.start(user)
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: listening.notice)
    other = copied(listening)
    listening.stop(user)
    assert other.notice is None
    assert (other.grace, other.reraise, other.poll, other._clouds) == (7, False, 0.05, listening._clouds)
    other.start(user)
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: other.notice)
    other.stop(user)
    assert term == []
