"""Stores against real servers: users' mistakes, users' options, many processes, and what dies in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from waiting import HANG

from remote_ckpt.digests import digest_file
from remote_ckpt.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    InvalidRequestError,
    LocationError,
    ObjectNotFoundError,
    SpoolError,
    StoreFullError,
    TransientError,
)
from remote_ckpt.location import Location
from remote_ckpt.stores import MIB, DeltaBase, Expect, MemoryJournal, ObjectStore, Transfer, TransferReport, open_store
from remote_ckpt.stores.local import LocalStore
from remote_ckpt.stores.s3 import S3Store, copying
from remote_ckpt.testing.conformance import LARGE, make_file, upload
from remote_ckpt.testing.servers import READ_ONLY, Server

GetServer = Callable[[str], Server]

CLOUDS = ("seaweedfs", "fake_gcs")
QUICK = Transfer(deadline=2)


def opened(server: Server, path: str, transfer: Transfer | None = None, **options: Any) -> ObjectStore:
    """Open a run on a server, with options over the server's own."""
    return open_store(Location.parse(server.url(path)), {**server.storage_options, **options}, transfer=transfer)


def client(server: Server) -> Any:
    """Plain boto3, to look at what was made."""
    options = server.storage_options
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=options["key"],
        aws_secret_access_key=options["secret"],
        region_name="us-east-1",
    )


# Mistakes


@pytest.mark.parametrize("name", CLOUDS)
def test_a_missing_bucket_is_not_an_empty_run(get_server: GetServer, tmp_path: Path, name: str) -> None:
    """Every verb says which bucket is missing."""
    server = get_server(name)
    store = open_store(Location.parse(f"{server.protocol}://no-such-bucket/run"), server.storage_options)
    digests = make_file(tmp_path / "source", 10)
    for verb in (
        lambda: store.read("manifest.json", limit=10),
        lambda: store.stat("manifest.json"),
        lambda: store.write("manifest.json", b"{}", expect=Expect.ABSENT),
        lambda: upload(store, "w.h5", tmp_path / "source", digests),
        lambda: list(store.scan()),
    ):
        with pytest.raises(BucketNotFoundError, match=r"does not exist"):
            verb()


def test_a_wrong_secret_is_told_as_such(get_server: GetServer, prefix: str) -> None:
    """And not as "access denied to this object"."""
    store = opened(get_server("seaweedfs"), prefix, secret="wrong")
    with pytest.raises(AccessDeniedError, match="access key or its secret is wrong"):
        store.read("manifest.json", limit=10)


def test_who_may_only_read_is_told_what_is_missing(get_server: GetServer, prefix: str, tmp_path: Path) -> None:
    """Reading works, writing names the permission."""
    server = get_server("seaweedfs")
    opened(server, prefix).write("manifest.json", b"{}", expect=Expect.ABSENT)
    reader = opened(server, prefix, key=READ_ONLY.credentials.key, secret=READ_ONLY.credentials.secret)
    assert reader.read("manifest.json", limit=10)[0] == b"{}"
    with pytest.raises(AccessDeniedError, match="s3:PutObject"):
        reader.write("manifest.json", b"[]", expect=Expect.ANYTHING)
    for size in (10, LARGE):
        digests = make_file(tmp_path / "source", size)
        with pytest.raises(AccessDeniedError, match="s3:PutObject"):
            upload(reader, "w.h5", tmp_path / "source", digests)


def test_no_credentials_at_all_is_told_with_the_remedy(
    get_server: GetServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the variables to set."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = get_server("seaweedfs")
    store = open_store(Location.parse(server.url(prefix)), {"endpoint_url": server.endpoint})
    with pytest.raises(AccessDeniedError, match="AWS_ACCESS_KEY_ID"):
        store.read("manifest.json", limit=10)


def test_an_endpoint_where_nobody_listens_is_given_up(tmp_path: Path) -> None:
    """Within the deadline, and the message says where to look."""
    location = Location.parse("s3://bucket/run")
    options = {"key": "k", "secret": "s", "endpoint_url": "http://127.0.0.1:9"}
    start = time.monotonic()
    with pytest.raises(TransientError, match="cannot be reached"):
        open_store(location, options, transfer=QUICK).read("manifest.json", limit=10)
    assert time.monotonic() - start < HANG / 2


def test_a_misspelt_option_is_told(tmp_path: Path) -> None:
    """Rather than ignored."""
    with pytest.raises(InvalidRequestError, match="storage_options"):
        open_store(Location.parse("s3://b/r"), {"client_kwargs": {"region": "x"}}, transfer=QUICK).stat("k")


def test_an_unknown_scheme_names_the_usual_ones() -> None:
    """And a known one without its package names the package."""
    with pytest.raises(LocationError, match=r"s3://, gs://"):
        open_store(Location.parse("s4://bucket/run"))
    with pytest.raises(LocationError, match=r"adlfs|package"):
        open_store(Location.parse("abfs://bucket/run"))


def test_a_secret_is_never_in_an_error(get_server: GetServer, prefix: str) -> None:
    """Whatever goes wrong."""
    store = opened(get_server("seaweedfs"), prefix, secret="very-secret-indeed")
    with pytest.raises(AccessDeniedError) as caught:
        store.read("manifest.json", limit=10)
    error: BaseException | None = caught.value
    while error is not None:
        assert "very-secret-indeed" not in repr(error)
        error = error.__cause__


# Options


@pytest.mark.parametrize("size", [10, LARGE])
def test_storage_class_and_encryption_reach_the_object(
    get_server: GetServer, prefix: str, tmp_path: Path, size: int
) -> None:
    """s3fs's own argument, on single requests, on uploads in parts and on copies."""
    server = get_server("moto")
    extra = {"StorageClass": "STANDARD_IA", "ServerSideEncryption": "AES256"}
    store = opened(server, prefix, s3_additional_kwargs=extra)
    digests = make_file(tmp_path / "source", size)
    upload(store, "w.h5", tmp_path / "source", digests)
    store.copy("w.h5", "best.h5")
    for key in ("w.h5", "best.h5"):
        found = client(server).head_object(Bucket=server.bucket, Key=f"{prefix}/{key}")
        assert (found["StorageClass"], found["ServerSideEncryption"]) == ("STANDARD_IA", "AES256")


def test_the_users_settings_win(get_server: GetServer, prefix: str) -> None:
    """Even about the connection pool and retries."""
    store = S3Store(
        Location.parse("s3://b/r"), {"config_kwargs": {"max_pool_connections": 3, "s3": {"addressing_style": "path"}}}
    )
    config = store._session._fs.config_kwargs
    assert config["max_pool_connections"] == 3
    assert config["s3"] == {"payload_signing_enabled": False, "addressing_style": "path"}
    assert config["retries"]["total_max_attempts"] == 1


@pytest.mark.parametrize("name", CLOUDS)
def test_a_bandwidth_limit_is_kept(get_server: GetServer, prefix: str, tmp_path: Path, name: str) -> None:
    """Both ways, within a fifth."""
    size = 12 * MIB
    store = opened(get_server(name), prefix, Transfer(max_bandwidth=8 * MIB))
    digests = make_file(tmp_path / "source", size)
    start = time.monotonic()
    upload(store, "w.h5", tmp_path / "source", digests)
    middle = time.monotonic()
    store.fetch("w.h5", tmp_path / "target", size=size)
    for seconds in (middle - start, time.monotonic() - middle):
        assert seconds > 0.8 * size / (8 * MIB)


def test_payloads_can_be_signed_where_someone_wants_it(get_server: GetServer, prefix: str, tmp_path: Path) -> None:
    """botocore then reads each part before it is sent."""
    store = opened(get_server("seaweedfs"), prefix, config_kwargs={"s3": {"payload_signing_enabled": True}})
    digests = make_file(tmp_path / "source", LARGE)
    upload(store, "w.h5", tmp_path / "source", digests)
    store.fetch("w.h5", tmp_path / "target", size=LARGE)
    assert digest_file(tmp_path / "target") == digest_file(tmp_path / "source")


# Copies and deltas


def test_a_copy_in_ranges_is_the_same_object(get_server: GetServer, prefix: str, tmp_path: Path) -> None:
    """As objects beyond the limit of one request are copied."""
    store = S3Store(Location.parse(get_server("seaweedfs").url(prefix)), get_server("seaweedfs").storage_options)
    digests = make_file(tmp_path / "source", LARGE)
    upload(store, "w.h5", tmp_path / "source", digests)
    copied = store._session.run(copying.copy(store._session, "w.h5", "best.h5", at_once=MIB, part=6 * MIB))
    assert copied.size == LARGE
    store.fetch("best.h5", tmp_path / "target", size=LARGE)
    assert digest_file(tmp_path / "target").sha256 == digests.sha256
    assert store.sweep_uploads(timedelta(0)) == []


@pytest.mark.parametrize("name", ["seaweedfs", "localstack", "moto", "ministack"])
def test_only_what_changed_is_sent(get_server: GetServer, prefix: str, tmp_path: Path, name: str) -> None:
    """One byte costs one block."""
    store = opened(get_server(name), prefix)
    first = make_file(tmp_path / "first", 40 * MIB)
    data = bytearray((tmp_path / "first").read_bytes())
    data[20 * MIB] ^= 1
    (tmp_path / "second").write_bytes(data)
    upload(store, "1.h5", tmp_path / "first", first)
    second = digest_file(tmp_path / "second", blocks=True)
    _, report = upload(store, "2.h5", tmp_path / "second", second, base=DeltaBase("1.h5", first))
    assert (report.sent, report.reused) == (8 * MIB, 32 * MIB)
    store.fetch("2.h5", tmp_path / "target", size=40 * MIB)
    assert digest_file(tmp_path / "target").sha256 == second.sha256


@pytest.mark.parametrize("name", CLOUDS)
def test_an_unchanged_checkpoint_is_not_sent_at_all(
    get_server: GetServer, prefix: str, tmp_path: Path, name: str
) -> None:
    """It is copied as a whole."""
    store = opened(get_server(name), prefix)
    digests = make_file(tmp_path / "source", LARGE)
    upload(store, "1.h5", tmp_path / "source", digests)
    _, report = upload(store, "2.h5", tmp_path / "source", digests, base=DeltaBase("1.h5", digests))
    assert (report.sent, report.reused) == (0, LARGE)


# Processes

UPLOADER = """
import json, sys
from pathlib import Path
from remote_ckpt.digests import digest_file
from remote_ckpt.location import Location
from remote_ckpt.stores import MIB, Transfer, TransferReport, open_store

class FileJournal:
    path = Path(sys.argv[4])
    def load(self):
        return json.loads(self.path.read_text()) if self.path.exists() else {}
    def save(self, state):
        self.path.write_text(json.dumps(state))

url, options, source = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
rate = float(sys.argv[5]) or None
transfer = Transfer(part_size=5 * MIB, concurrency=2, max_bandwidth=rate)
store = open_store(Location.parse(url), options, transfer=transfer)
report = TransferReport()
told = lambda size: print("part", size, flush=True)
store.upload("w.h5", source, digests=digest_file(source), journal=FileJournal(), report=report, progress=told)
print("done", report.sent, report.reused, flush=True)
"""


@pytest.mark.parametrize("name", CLOUDS)
def test_a_killed_upload_is_resumed_by_another_process(
    get_server: GetServer, prefix: str, tmp_path: Path, name: str
) -> None:
    """What had arrived is not sent again, and nothing of the first attempt is left."""
    server, size = get_server(name), 40 * MIB
    digests = make_file(tmp_path / "source", size)
    arguments = [server.url(prefix), json.dumps(server.storage_options), str(tmp_path / "source"), str(tmp_path / "j")]
    command = [sys.executable, "-c", UPLOADER, *arguments]
    with subprocess.Popen([*command, str(10 * MIB)], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        for _ in range(4):
            assert killed.stdout.readline().startswith("part")
        os.kill(killed.pid, signal.SIGKILL)
    store = opened(server, prefix)
    assert list(store.scan()) == []  # nothing partial is visible
    done = subprocess.run([*command, "0"], stdout=subprocess.PIPE, text=True, check=True, timeout=HANG)
    sent, reused = map(int, done.stdout.splitlines()[-1].split()[1:])
    assert reused >= 20 * MIB
    assert sent <= size - reused
    store.fetch("w.h5", tmp_path / "target", size=size)
    assert digest_file(tmp_path / "target").sha256 == digests.sha256
    assert store.sweep_uploads(timedelta(0)) == []


@pytest.mark.parametrize("name", CLOUDS)
def test_a_sweep_removes_stale_uploads_of_this_run_only(
    get_server: GetServer, prefix: str, tmp_path: Path, name: str
) -> None:
    """The neighbour's upload, and a young one of our own, go on."""
    server = get_server(name)
    ours, theirs = opened(server, f"{prefix}/run"), opened(server, f"{prefix}/run-2")
    make_file(tmp_path / "source", 40 * MIB)
    for number, store in enumerate((ours, theirs)):
        journal = tmp_path / f"j{number}"
        arguments = [store.url, json.dumps(server.storage_options), str(tmp_path / "source"), str(journal)]
        command = [sys.executable, "-c", UPLOADER, *arguments, str(20 * MIB)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
            assert killed.stdout is not None
            killed.stdout.readline()
            os.kill(killed.pid, signal.SIGKILL)
    assert ours.sweep_uploads(timedelta(hours=1)) == []
    assert ours.sweep_uploads(timedelta(0), dry_run=True)
    assert ours.sweep_uploads(timedelta(0))
    assert ours.sweep_uploads(timedelta(0)) == []
    assert theirs.sweep_uploads(timedelta(0), dry_run=True)


FORKER = """
import json, os, sys
from remote_ckpt.errors import InvalidRequestError
from remote_ckpt.location import Location
from remote_ckpt.stores import Expect, open_store
url, options = sys.argv[1], json.loads(sys.argv[2])
store = open_store(Location.parse(url), options)
store.write("k", b"1", expect=Expect.ANYTHING)
if os.fork() == 0:
    try:
        store.read("k", limit=9)
    except InvalidRequestError as error:
        fresh = open_store(Location.parse(url), options)
        print("fork" in str(error), fresh.read("k", limit=9)[0], flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize("name", CLOUDS)
def test_a_store_opened_before_a_fork_says_so_in_the_child(get_server: GetServer, prefix: str, name: str) -> None:
    """And a fresh one works there."""
    server = get_server(name)
    command = [sys.executable, "-W", "ignore", "-c", FORKER, server.url(prefix), json.dumps(server.storage_options)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=HANG)
    assert done.stdout.strip() == "True b'1'"


LATE = """
import atexit, json, sys
from pathlib import Path
from remote_ckpt.digests import digest_file
from remote_ckpt.errors import StoreError
from remote_ckpt.location import Location
from remote_ckpt.stores import MemoryJournal, TransferReport, open_store
url, options, source = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
store = open_store(Location.parse(url), options)

def late():
    try:
        store.upload("w.h5", source, digests=digest_file(source), journal=MemoryJournal(), report=TransferReport())
    except StoreError as error:
        print(error, flush=True)
    else:
        print("uploaded", flush=True)

atexit.register(late)
"""


@pytest.mark.parametrize("name", CLOUDS)
def test_an_upload_at_interpreter_exit_is_never_silently_lost(
    get_server: GetServer, prefix: str, tmp_path: Path, name: str
) -> None:
    """It succeeds or says at once that it is too late; it neither hangs nor pretends."""
    server = get_server(name)
    digests = make_file(tmp_path / "source", LARGE)
    arguments = [server.url(prefix), json.dumps(server.storage_options), str(tmp_path / "source")]
    command = [sys.executable, "-W", "ignore", "-c", LATE, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=HANG)
    if done.stdout.strip() == "uploaded":
        assert opened(server, prefix).stat("w.h5").size == digests.size
    else:
        assert "shutting down" in done.stdout


@pytest.mark.parametrize("name", CLOUDS)
def test_a_closed_store_leaves_no_connection_behind(get_server: GetServer, prefix: str, name: str) -> None:
    """No "unclosed" warning at exit, closed by hand or not."""
    server = get_server(name)
    script = (
        "import json, sys; from remote_ckpt.location import Location; from remote_ckpt.stores import *\n"
        "for close in (True, False):\n"
        "    store = open_store(Location.parse(sys.argv[1]), json.loads(sys.argv[2]))\n"
        "    store.write('k', b'1', expect=Expect.ANYTHING)\n"
        "    if close: store.close()\n"
    )
    command = [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c", script]
    command += [server.url(prefix), json.dumps(server.storage_options)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True, timeout=HANG)
    assert "nclosed" not in done.stderr
    assert "Traceback" not in done.stderr


# Memory


@pytest.mark.slow
def test_the_memory_of_an_upload_is_bounded(get_server: GetServer, prefix: str, tmp_path: Path) -> None:
    """The bound, plus what the interpreter and its libraries need."""
    server = get_server("seaweedfs")
    size = 512 * MIB
    with (tmp_path / "source").open("wb") as file:
        for number in range(size // MIB):
            file.write(number.to_bytes(8, "big") * (MIB // 8))
    script = UPLOADER + "\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    peaks = []
    for number, name in enumerate(("small", "source")):
        path = tmp_path / name
        if name == "small":
            path.write_bytes(b"x" * 100)
        arguments = [server.url(f"{prefix}/{number}"), json.dumps(server.storage_options), str(path)]
        command = [sys.executable, "-c", script.replace("part_size=5 * MIB, concurrency=2, ", ""), *arguments]
        command += [str(tmp_path / f"j{number}"), "0"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=HANG)
        peaks.append(int(done.stdout.splitlines()[-1]) << 10)
    assert peaks[1] - peaks[0] < Transfer().memory + 64 * MIB


# Local folders


def test_a_link_out_of_the_run_is_not_followed(tmp_path: Path) -> None:
    """Neither a linked file nor a linked folder."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").symlink_to(tmp_path / "secret")
    (tmp_path / "run" / "folder").symlink_to(tmp_path)
    store = LocalStore(str(tmp_path / "run"))
    with pytest.raises(InvalidRequestError, match="symbolic link"):
        store.read("file", limit=100)
    with pytest.raises(AccessDeniedError, match="out of the run"):
        store.read("folder/secret", limit=100)
    with pytest.raises(AccessDeniedError, match="out of the run"):
        store.write("folder/secret", b"x", expect=Expect.ANYTHING)
    assert [info.key for info in store.scan()] == []
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """With what to do about it."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    store = LocalStore(str(tmp_path / "run"))
    store.write("w.h5", b"x" * 100_000, expect=Expect.ANYTHING)
    with pytest.raises(StoreFullError, match="Free some space"):
        store.fetch("w.h5", Path("/dev/full"), size=100_000)


def test_a_pipe_in_the_run_does_not_block_a_reader(tmp_path: Path) -> None:
    """It is not an object."""
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "manifest.json")
    with pytest.raises(ObjectNotFoundError):
        LocalStore(str(tmp_path / "run")).read("manifest.json", limit=10)


def test_a_vanished_source_is_an_error_of_the_spool(tmp_path: Path) -> None:
    """And not "no such object"."""
    digests = make_file(tmp_path / "source", 10)
    (tmp_path / "source").unlink()
    for url in (str(tmp_path / "run"), "memory://vanished/run"):
        with pytest.raises(SpoolError, match="source"):
            upload(open_store(Location.parse(url)), "w.h5", tmp_path / "source", digests)


def test_temporary_files_of_a_killed_writer_are_swept(tmp_path: Path) -> None:
    """Once they are old."""
    store = LocalStore(str(tmp_path / "run"))
    store.write("manifest.json", b"{}", expect=Expect.ANYTHING)
    left = tmp_path / "run" / ".remote_ckpt" / "tmp" / "left"
    left.write_bytes(b"half")
    assert store.sweep_uploads(timedelta(hours=1)) == []
    assert store.sweep_uploads(timedelta(seconds=-1)) == [".remote_ckpt/tmp/left"]
    assert not left.exists()


def test_an_upload_across_filesystems_is_copied(tmp_path: Path) -> None:
    """Where no link is possible."""
    shared = Path("/dev/shm")
    if not shared.exists() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second filesystem")
    source = shared / f"remote_ckpt-test-{os.getpid()}"
    try:
        digests = make_file(source, LARGE)
        report = TransferReport()
        store = LocalStore(str(tmp_path / "run"))
        store.upload("w.h5", source, digests=digests, journal=MemoryJournal(), report=report)
        assert report.sent == LARGE
        assert digest_file(tmp_path / "run" / "w.h5").sha256 == digests.sha256
    finally:
        source.unlink(missing_ok=True)
