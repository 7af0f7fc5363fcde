"""Servers that mean no good, or are no stores at all: endless answers, redirects, bombs, pages for people."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
import traceback
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest
from hostile import endless, hostile, reply

from remote_ckpt.errors import InvalidRequestError, RemoteCkptError, TransientError
from remote_ckpt.location import Location
from remote_ckpt.run import Run
from remote_ckpt.stores import Expect, Transfer, open_store

TOKEN = "session-token-5c11"
KINDS = ["s3", "gs"]

READER = """
import sys
from remote_ckpt.run import Run
from remote_ckpt.stores import Transfer
run = Run(sys.argv[1], storage_options=eval(sys.argv[2]), transfer=Transfer(deadline=1.0))
try:
    run.manifest()
    print("read", flush=True)
except Exception as exc:
    print(type(exc).__name__, flush=True)
sys.stdin.read()
"""


def options(kind: str, server) -> dict:
    if kind == "s3":
        keys = {"key": "k", "secret": "s", "token": TOKEN, "client_kwargs": {"region_name": "us-east-1"}}
        return {**keys, "endpoint_url": server.url}
    return {} if kind == "http" else {"endpoint_url": server.url, "token": "anon"}


def url_of(kind: str, server) -> str:
    return f"{server.url}/run" if kind == "http" else f"{kind}://bucket/run"


def store(kind: str, server):
    given = options(kind, server)
    return open_store(Location.parse(url_of(kind, server)), given, transfer=Transfer(deadline=1.0))


def read_apart(url: str, given: dict) -> tuple[str, int]:
    """Read the manifest in a process of its own; return how it went, and the most memory that it had had, in MB."""
    command = [sys.executable, "-c", READER, url, repr(given)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        outcome = process.stdout.readline().strip()
        seen = Path(f"/proc/{process.pid}/status").read_text()  # it waits meanwhile
        process.communicate()
    return outcome, int(seen.partition("VmHWM:")[2].split()[0]) // 1000


@pytest.mark.parametrize("kind", [*KINDS, "http"])
@pytest.mark.parametrize("status", [403, 200])
def test_an_endless_answer_takes_no_memory(kind, status):
    """Neither a refusal nor a success; seen from outside of the process."""
    with hostile(endless(status, ETag='"1"', X_Goog_Generation="1")) as server:
        outcome, peak = read_apart(url_of(kind, server), options(kind, server))
    assert outcome != "read"
    assert peak < 400


@pytest.mark.parametrize("kind", [*KINDS, "http"])
def test_a_compressed_bomb_is_counted_as_it_is(kind):
    """Two million bytes of gzip would be two thousand million; whoever set the header."""
    bomb = gzip.compress(b" " * (1 << 20) * 200 + b"{}")

    def answer(handler):
        reply(handler, 200, bomb, Content_Encoding="gzip", ETag='"1"', X_Goog_Generation="1")

    with hostile(answer) as server:
        outcome, peak = read_apart(url_of(kind, server), options(kind, server))
    assert outcome != "read"
    assert peak < 300


def test_a_compressed_manifest_in_a_bucket_of_google_is_counted_as_it_is(get_server, prefix):
    """Whoever may write an object may say that it is compressed; signing keys do not help, for it comes first."""
    server = get_server("fake_gcs")
    body = gzip.compress(b" " * (1 << 20) * 200 + b"{}")
    about = json.dumps({"name": f"{prefix}/manifest.json", "contentEncoding": "gzip"}).encode()
    parts = (b"--x\r\nContent-Type: application/json\r\n\r\n", about, b"\r\n--x\r\nContent-Type: a/b\r\n\r\n", body)
    urllib.request.urlopen(
        urllib.request.Request(
            f"{server.endpoint}/upload/storage/v1/b/{server.bucket}/o?uploadType=multipart",
            b"".join((*parts, b"\r\n--x--\r\n")),
            {"Content-Type": "multipart/related; boundary=x"},
        )
    ).close()
    outcome, peak = read_apart(server.url(prefix), server.storage_options)
    assert outcome != "read"
    assert peak < 300


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_leaves_the_place(kind, status):
    """Neither the token nor a PUT's body goes to a host that an answer names; the error names it."""
    with hostile(lambda handler: reply(handler, 200, b"{}")) as elsewhere:

        def lead_away(handler):
            reply(handler, status, Location=f"{elsewhere.url}/x?X-Amz-Signature=77aa")

        with hostile(lead_away) as server:
            there = store(kind, server)
            for verb in (
                lambda: there.read("manifest.json", limit=100),
                lambda: there.write("manifest.json", b"secret weights", expect=Expect.ANYTHING),
                lambda: there.stat("manifest.json"),
                lambda: there.delete("manifest.json"),
                lambda: list(there.scan()),
            ):
                with pytest.raises(InvalidRequestError) as caught:
                    verb()
                assert elsewhere.url in str(caught.value)
                assert "77aa" not in str(caught.value)
    assert elsewhere.seen == []


def test_a_redirect_to_another_region_is_answered_by_signing_anew():
    """As AWS leads to a bucket's own region; the request stays with the endpoint that was named."""
    signed = []

    def answer(handler):
        scope = handler.headers["Authorization"].split("/")[2]
        signed.append(scope)
        if scope == "eu-west-1":
            return reply(handler, 200, b"{}", ETag='"1"')
        body = b"<Error><Code>PermanentRedirect</Code><Message>Use the right endpoint.</Message></Error>"
        return reply(handler, 301, body, x_amz_bucket_region="eu-west-1", Location="http://127.0.0.1:9/elsewhere")

    with hostile(answer) as server:
        assert store("s3", server).read("k", limit=10)[0] == b"{}"
    assert signed[0] == "us-east-1"
    assert signed[-1] == "eu-west-1"


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_trickles_is_given_up(kind, monkeypatch):
    """A byte now and then satisfies a timeout for one read for ever."""
    for module in ("answers", "download"):
        monkeypatch.setattr(f"remote_ckpt.stores.transfer.{module}.ANSWER_TIMEOUT", 1.0)

    def answer(handler):
        reply(handler, 200, b"", Content_Length="100000", ETag='"1"', X_Goog_Generation="1")
        for _ in range(600):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)

    with hostile(answer) as server, pytest.raises(TransientError):
        store(kind, server).read("k", limit=100_000)


@pytest.mark.parametrize(
    ("kind", "body"),
    [("gs", b"{}"), ("gs", b"[]"), ("gs", b"<html>Please sign in</html>"), ("gs", b'{"items": [{}]}'), ("s3", b"<a/>")],
)
def test_an_answer_without_its_fields_is_an_error_of_ours(kind, body):
    """Never a KeyError: whoever catches ours catches these."""
    with hostile(lambda handler: reply(handler, 200, body)) as server:
        there = store(kind, server)
        for verb in (
            lambda: there.read("k", limit=100),
            lambda: there.write("k", b"1", expect=Expect.ANYTHING),
            lambda: there.stat("k"),
            lambda: there.copy("k", "l"),
            lambda: list(there.scan()),
        ):
            try:
                verb()
            except RemoteCkptError:
                continue


@pytest.mark.parametrize("key", ["%2e%2e/secret.h5", "a#b.h5", "a?b.h5", "a%2fb.h5", "a b.h5"])
def test_a_key_on_plain_http_is_that_key(key):
    """A manifest's key must not climb out of the run, nor end in a fragment or a query."""
    with hostile(lambda handler: reply(handler, 200, b"x")) as server:
        store("http", server).read(key, limit=10)
        assert {path for _, path, _ in server.seen} == {f"/run/{quote(key)}"}


def test_a_token_in_a_runs_url_is_in_no_message_and_no_log(caplog):
    """It is sent as what it is, and the URL goes without it."""
    caplog.set_level("DEBUG")
    with hostile(lambda handler: reply(handler, 404)) as server:
        url = f"http://ghp_s3cr3t@127.0.0.1:{server.server_port}/run"
        with pytest.raises(RemoteCkptError) as caught:
            Run(url, transfer=Transfer(deadline=1.0)).store.read("manifest.json", limit=10)
        assert all(headers.get("Authorization", "").startswith("Basic ") for _, _, headers in server.seen)
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "ghp_s3cr3t" not in told
