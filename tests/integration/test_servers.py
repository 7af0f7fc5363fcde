"""The servers that stand in for the clouds start, behave as they are described, and leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.s3.models import S3Backend
from moto.server import ThreadedMotoServer
from waiting import HANG, until

from remote_ckpt.errors import RemoteCkptError
from remote_ckpt.testing.servers import (
    ALL,
    MANY_WRITERS,
    READ_ONLY,
    Server,
    ServerPool,
    ServerStartError,
    start,
    start_localstack,
    start_moto,
    start_seaweedfs,
)

CONDITIONAL = ["seaweedfs", "localstack", "moto", "ministack"]

needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's /proc")


def s3_client(server: Server, **changes: str) -> Any:
    options = {**server.storage_options, **changes}
    return boto3.client(
        "s3",
        endpoint_url=options["endpoint_url"],
        region_name=options["client_kwargs"]["region_name"],
        aws_access_key_id=options["key"],
        aws_secret_access_key=options["secret"],
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )


def status(call: Callable[..., Any], **arguments: Any) -> int:
    try:
        answer = call(**arguments)
    except ClientError as error:
        answer = error.response
    return int(answer["ResponseMetadata"]["HTTPStatusCode"])


def gcs_upload(server: Server, key: str, body: bytes, *, generation: int) -> int:
    metadata = json.dumps({"name": key}).encode()
    parts = [b"Content-Type: application/json\r\n\r\n" + metadata, b"Content-Type: text/plain\r\n\r\n" + body]
    content = b"".join(b"--cut\r\n" + part + b"\r\n" for part in parts) + b"--cut--\r\n"
    request = urllib.request.Request(
        f"{server.endpoint}/upload/storage/v1/b/{server.bucket}/o?uploadType=multipart&ifGenerationMatch={generation}",
        data=content,
        headers={"Content-Type": "multipart/related; boundary=cut"},
    )
    try:
        with urllib.request.urlopen(request, timeout=HANG) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def processes() -> dict[int, int]:
    """Every process that is not a zombie, with its parent."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            found[int(stat.parent.name)] = int(parent)
    return found


def family(pid: int) -> set[int]:
    """`pid` and all that descends from it."""
    members, parents = {pid}, processes()
    while more := {child for child, parent in parents.items() if parent in members} - members:
        members |= more
    return members


def listening_addresses(pids: set[int]) -> set[str]:
    """Where these processes listen, as /proc/net writes it: the address in hexadecimal."""
    sockets = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                sockets.add(str(handle.readlink()))
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}


@pytest.mark.parametrize("server", ALL, indirect=True)
def test_fsspec_round_trips_with_the_storage_options(server: Server, prefix: str) -> None:
    filesystem, path = fsspec.url_to_fs(server.url(f"{prefix}/a"), **server.storage_options)
    filesystem.pipe_file(path, b"bytes")
    assert filesystem.cat_file(path) == b"bytes"
    assert [entry.rpartition("/")[2] for entry in filesystem.ls(server.url(prefix), detail=False)] == ["a"]


@pytest.mark.parametrize("server", ["moto", "fake_gcs"], indirect=True)
def test_a_subprocess_needs_only_the_environment(server: Server, prefix: str) -> None:
    url = server.url(f"{prefix}/a")
    code = "import sys, fsspec\nwith fsspec.open(sys.argv[1], 'wb') as file: file.write(b'bytes')"
    environment = {**os.environ, **server.environment}
    subprocess.run([sys.executable, "-c", code, url], env=environment, check=True, timeout=HANG)
    with fsspec.open(url, "rb", **server.storage_options) as file:
        assert file.read() == b"bytes"


@pytest.mark.parametrize("server", CONDITIONAL, indirect=True)
def test_a_create_only_put_of_an_existing_key_is_refused(server: Server, prefix: str) -> None:
    put = s3_client(server).put_object
    assert status(put, Bucket=server.bucket, Key=prefix, Body=b"1", IfNoneMatch="*") == 200
    assert status(put, Bucket=server.bucket, Key=prefix, Body=b"2", IfNoneMatch="*") == 412


@pytest.mark.parametrize("server", CONDITIONAL, indirect=True)
def test_a_put_succeeds_only_on_the_version_it_names(server: Server, prefix: str) -> None:
    client = s3_client(server)
    first = client.put_object(Bucket=server.bucket, Key=prefix, Body=b"1")["ETag"]
    assert status(client.put_object, Bucket=server.bucket, Key=prefix, Body=b"2", IfMatch=first) == 200
    assert status(client.put_object, Bucket=server.bucket, Key=prefix, Body=b"3", IfMatch=first) == 412


@pytest.mark.parametrize("condition", [{"IfNoneMatch": "*"}, {"IfMatch": "the version that is there"}])
def test_moto_checks_a_condition_and_writes_afterwards(condition: dict[str, str], monkeypatch: Any) -> None:
    """Two writers with one condition both win: it is no server for several writers. (Is it one by now? Say so then.)"""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="k",
        aws_secret_access_key="s",
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )
    try:
        client.create_bucket(Bucket="race")
        if "IfMatch" in condition:
            condition = {"IfMatch": client.put_object(Bucket="race", Key="key", Body=b"0")["ETag"]}
        both, write = threading.Barrier(2), S3Backend.put_object

        def write_together(*arguments: Any, **options: Any) -> Any:
            with contextlib.suppress(threading.BrokenBarrierError):  # the other was refused before it came here
                both.wait(HANG)
            return write(*arguments, **options)

        monkeypatch.setattr(S3Backend, "put_object", write_together)
        with ThreadPoolExecutor(2) as pool:
            put = partial(status, client.put_object, Bucket="race", Key="key", **condition)
            assert [one.result() for one in [pool.submit(put, Body=body) for body in (b"1", b"2")]] == [200, 200]
    finally:
        moto.stop()


def test_moto_and_rclone_are_no_servers_for_several_writers() -> None:
    """Each server is in the catalogue, and what is left out has its reason."""
    assert set(ALL) - set(MANY_WRITERS) == {"moto", "rclone"}


@pytest.mark.parametrize("server", ["rclone"], indirect=True)
def test_rclone_accepts_preconditions_and_overwrites_nevertheless(server: Server, prefix: str) -> None:
    client = s3_client(server)
    assert status(client.put_object, Bucket=server.bucket, Key=prefix, Body=b"1") == 200
    assert status(client.put_object, Bucket=server.bucket, Key=prefix, Body=b"2", IfNoneMatch="*") == 200
    assert status(client.put_object, Bucket=server.bucket, Key=prefix, Body=b"3", IfMatch='"stale"') == 200
    assert client.get_object(Bucket=server.bucket, Key=prefix)["Body"].read() == b"3"


@pytest.mark.parametrize("server", ["fake_gcs"], indirect=True)
def test_a_gcs_upload_succeeds_only_on_the_generation_it_names(server: Server, prefix: str) -> None:
    assert gcs_upload(server, prefix, b"1", generation=0) == 200
    assert gcs_upload(server, prefix, b"2", generation=0) == 412
    assert gcs_upload(server, prefix, b"3", generation=1) == 412


@pytest.mark.parametrize("server", ["seaweedfs", "localstack", "moto", "ministack"], indirect=True)
def test_a_range_of_an_object_becomes_a_part_of_another(server: Server, prefix: str) -> None:
    client, base, target = s3_client(server), f"{prefix}/base", f"{prefix}/target"
    client.put_object(Bucket=server.bucket, Key=base, Body=b"0123456789")
    upload = {"Bucket": server.bucket, "Key": target}
    upload["UploadId"] = client.create_multipart_upload(**upload)["UploadId"]
    source = {"Bucket": server.bucket, "Key": base}
    copied = client.upload_part_copy(**upload, PartNumber=1, CopySource=source, CopySourceRange="bytes=2-5")
    parts = [{"PartNumber": 1, "ETag": copied["CopyPartResult"]["ETag"]}]
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert client.get_object(Bucket=server.bucket, Key=target)["Body"].read() == b"2345"


@pytest.mark.parametrize("server", ["seaweedfs", "localstack"], indirect=True)
def test_a_strict_server_refuses_a_wrong_checksum(server: Server, prefix: str) -> None:
    put = s3_client(server).put_object
    assert status(put, Bucket=server.bucket, Key=prefix, Body=b"1", ChecksumCRC32C="AAAAAA==") == 400


@pytest.mark.parametrize("server", ["seaweedfs", "rclone"], indirect=True)
def test_a_strict_server_refuses_a_wrong_secret(server: Server, prefix: str) -> None:
    put = s3_client(server, secret="wrong").put_object
    assert status(put, Bucket=server.bucket, Key=prefix, Body=b"1") == 403


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_the_read_only_identity_reads_and_does_not_write(server: Server, prefix: str) -> None:
    s3_client(server).put_object(Bucket=server.bucket, Key=prefix, Body=b"1")
    reader = s3_client(server, key=READ_ONLY.credentials.key, secret=READ_ONLY.credentials.secret)
    assert reader.get_object(Bucket=server.bucket, Key=prefix)["Body"].read() == b"1"
    assert status(reader.put_object, Bucket=server.bucket, Key=prefix, Body=b"2") == 403
    assert status(reader.delete_object, Bucket=server.bucket, Key=prefix) == 403


@pytest.mark.parametrize("server", ALL, indirect=True)
def test_a_missing_bucket_is_not_made_by_writing_to_it(server: Server, prefix: str) -> None:
    url = f"{server.protocol}://no-such-bucket/{prefix}"
    with pytest.raises(FileNotFoundError):
        fsspec.filesystem(server.protocol, **server.storage_options).pipe_file(url, b"bytes")


@needs_proc
@pytest.mark.parametrize("server", ALL, indirect=True)
def test_a_server_listens_on_loopback_alone(server: Server) -> None:
    assert listening_addresses(family(server.process.pid)) == {"0100007F"}


def test_two_servers_of_one_kind_run_at_once() -> None:
    with start_seaweedfs() as one, start_seaweedfs() as two:
        s3_client(one).put_object(Bucket=one.bucket, Key="a", Body=b"1")
        assert status(s3_client(two).head_object, Bucket=two.bucket, Key="a") == 404


@needs_proc
@pytest.mark.parametrize("name", ALL)
def test_stop_leaves_no_process_and_no_file(name: str, get_server: Callable[[str], Server]) -> None:
    get_server(name)  # skips where it is not installed
    with start(name) as server:
        traces = [*server.process.files, *(Path(f"/proc/{pid}") for pid in family(server.process.pid))]
        assert len(traces) >= 3
        until(lambda: all(trace.exists() for trace in traces))
    server.stop()
    assert not any(trace.exists() for trace in traces)


@needs_proc
@pytest.mark.parametrize("name", ["seaweedfs", "moto"])
def test_a_server_dies_with_the_process_that_started_it(name: str, get_server: Callable[[str], Server]) -> None:
    get_server(name)
    code = (
        "import sys, time; from remote_ckpt.testing.servers import start; s = start(sys.argv[1]);"
        "print(s.process.pid, *s.process.files, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, name], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid, *files = starter.stdout.readline().split()
        members = family(int(pid))
        assert len(members) >= 2
        starter.send_signal(signal.SIGKILL)
    until(lambda: not members & set(processes()))
    until(lambda: not any(Path(file).exists() for file in files))


def test_a_server_that_fails_tells_why_and_how_to_install_it() -> None:
    pool = ServerPool(lambda name: start_localstack(venv=f"/nonexistent/{name}"))
    with pytest.raises(ServerStartError, match="no virtual environment /nonexistent/x") as first:
        pool.get("x")
    assert isinstance(first.value, RemoteCkptError)
    assert "pip install 'localstack-core[runtime]" in str(first.value)


def test_a_server_that_ends_at_once_shows_its_log(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho the disk is on fire >&2\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(ServerStartError, match=r"ended with status 3(?s:.*)the disk is on fire"):
        start_localstack(venv=tmp_path)


@needs_proc
def test_a_server_that_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\nexec sleep 600\n")
    python.chmod(0o755)
    before = family(os.getpid())
    with pytest.raises(ServerStartError, match=r"not ready after 0\.5 seconds"):
        start_localstack(venv=tmp_path, timeout=0.5)
    until(lambda: family(os.getpid()) <= before)


def test_a_taken_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ServerStartError, match="something else"):
        start_moto(port=taken.getsockname()[1])


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ServerStartError, match="seaweedfs, localstack"):
        start("minio")
