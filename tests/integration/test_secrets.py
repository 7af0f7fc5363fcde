"""Secrets are in nothing that we write, show, log or raise; whether all goes well or not."""

from __future__ import annotations

import logging
import pickle
import traceback
from pathlib import Path

import pytest
from records import seal

from remote_ckpt.cli._app import app
from remote_ckpt.errors import RemoteCkptError
from remote_ckpt.location import Location, redact
from remote_ckpt.manifest import Committer
from remote_ckpt.run import Run
from remote_ckpt.saving.publisher import Publisher
from remote_ckpt.saving.spool import Spool
from remote_ckpt.saving.writer import SeriesOptions, Writer
from remote_ckpt.stores import Transfer, insecure_endpoint, open_store

SIGNING_KEY = "signing-key-5f0c9b"
PASSWORD = "pass@word-77aa10"


def use(run: Run, number: int) -> str:
    """Write and read; return everything that was raised, as a traceback shows it, and every representation."""
    spool = Spool(run.location)
    told = []
    entry = seal(spool, number)
    spool.close()
    for verb in (run.recover, run.manifest, lambda: run.pull("best"), lambda: list(run.verify()), run.sweep):
        try:
            told.append(repr(verb()))
        except (RemoteCkptError, OSError) as error:
            told += [repr(error), "".join(traceback.format_exception(error))]
    committer = Committer(run.store, run.location, signer=run.signer)
    location = run.location.with_template("w-{epoch}.weights.h5")
    writer = Writer(location, run.store, SeriesOptions(), spool=spool, signer=run.signer)
    shown = (run, run.location, run.store, run.transfer, run.signer, committer, spool, entry, writer, writer.stats)
    return "\n".join([*told, *map(repr, shown), repr(Publisher(run.store, run.location, committer))])


def files(*folders: Path) -> bytes:
    """All that is in files, names included."""
    found = [path for folder in folders for path in folder.rglob("*")]
    return b"\n".join(str(p).encode() + (p.read_bytes() if p.is_file() else b"") for p in found)


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
@pytest.mark.parametrize("how", ["works", "wrong secret", "no server", "a token for a server"])
def test_nothing_tells_a_secret(server, prefix, how, tmp_path, caplog):
    """Logs at DEBUG, representations, errors with tracebacks, the manifest, spool, cache and probes."""
    caplog.set_level(logging.DEBUG, "remote_ckpt")
    options = dict(server.storage_options)
    if how == "no server":
        options["endpoint_url"] = f"http://me:{PASSWORD}@127.0.0.1:9"
    if how == "a token for a server":
        options["endpoint_url"] = f"http://{PASSWORD.replace('@', '')}@127.0.0.1:9"
    if how == "wrong secret":
        options["secret"] = "a-wrong-secret-31337"
    run = Run(
        server.url(prefix),
        storage_options=options,
        signing_key=SIGNING_KEY,
        transfer=Transfer(deadline=1 if "server" in how else 30),
    )
    told = use(run, 0)
    assert ("Traceback" in told) == (how != "works")
    written = files(tmp_path)
    if how == "works":
        written += run.store.read("manifest.json", limit=1 << 20)[0]
        assert b"hmac-sha256" in written
    for secret in (SIGNING_KEY, PASSWORD, PASSWORD.replace("@", ""), options["secret"]):
        assert secret not in told
        assert secret not in caplog.text
        assert secret.encode() not in written
    assert SIGNING_KEY.encode() not in pickle.dumps(run.signer)


@pytest.mark.parametrize("url", [f"sftp://me:{PASSWORD}@127.0.0.1:9/run", f"ftp://me:{PASSWORD}@127.0.0.1:9/run"])
def test_a_password_in_the_runs_url_is_never_told(url, tmp_path, caplog):
    """Not even when nothing is known of the protocol, or nobody answers."""
    caplog.set_level(logging.DEBUG, "remote_ckpt")
    location = Location.parse(url)
    told = repr(location) + location.name + location.url("w.keras")
    try:
        told += use(Run(url, transfer=Transfer(deadline=1)), 0)
    except (RemoteCkptError, OSError) as error:
        told += "".join(traceback.format_exception(error))
    for part in (PASSWORD, PASSWORD.partition("@")[2]):
        assert part not in told + caplog.text
        assert part.encode() not in files(tmp_path)


def test_the_command_line_hides_them_too():
    """Also in the error of an unknown protocol."""
    from typer.testing import CliRunner

    told = CliRunner().invoke(app, ["ls", f"nowhere://me:{PASSWORD}@host/run"])
    assert PASSWORD not in told.output + told.stderr


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sftp://me:a@b:c@host/run/x@y:z", "sftp://me:***@host/run/x@y:z"),
        ("http://me:secret@host:9000", "http://me:***@host:9000"),
        ("s3://bucket/a:b@c", "s3://bucket/a:b@c"),
    ],
)
def test_passwords_with_odd_characters(url, shown):
    """Up to the last @ before the path."""
    assert redact(url) == shown


PLAIN = [
    ("s3://b/r", {"endpoint_url": "http://minio.example:9000"}, {}),
    ("s3://b/r", {"client_kwargs": {"endpoint_url": "http://minio2.example"}}, {}),
    ("s3://b/r", {}, {"AWS_ENDPOINT_URL": "http://minio3.example"}),
    ("s3://b/r", {}, {"AWS_ENDPOINT_URL_S3": f"http://u:{PASSWORD}@10.0.0.7:9000"}),
    ("gs://b/r", {"endpoint_url": "http://gcs.example"}, {}),
    ("gs://b/r", {}, {"STORAGE_EMULATOR_HOST": "gcs2.example:4443"}),
]
FINE = [
    ("s3://b/r", {}, {}),
    ("s3://b/r", {"endpoint_url": "https://minio.example"}, {}),
    ("s3://b/r", {"endpoint_url": "http://127.0.0.1:9000"}, {}),
    ("s3://b/r", {"endpoint_url": "http://[::1]:9000"}, {}),
    ("s3://b/r", {"endpoint_url": "https://x.example"}, {"AWS_ENDPOINT_URL": "http://overruled.example"}),
    ("gs://b/r", {"endpoint_url": "http://localhost:4443"}, {}),
    ("memory://b/r", {}, {"AWS_ENDPOINT_URL": "http://not-asked.example"}),
]


@pytest.mark.parametrize(("url", "options", "environment"), PLAIN)
def test_plain_http_is_told_once(url, options, environment, caplog, monkeypatch):
    """For each server; without its password."""
    monkeypatch.setattr(insecure_endpoint, "_told", set())
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for _ in range(3):
        insecure_endpoint.warn_once(Location.parse(url), options)
    assert caplog.text.count("without encryption") == 1
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize(("url", "options", "environment"), FINE)
def test_what_is_encrypted_or_stays_on_this_machine_is_not(url, options, environment, caplog, monkeypatch):
    """Loopback in all its names."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    insecure_endpoint.warn_once(Location.parse(url), options)
    assert not caplog.text


def profiled(tmp_path, monkeypatch, text):
    (tmp_path / "config").write_text(f"[profile there]\nregion = us-east-1\n{text}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return {"profile": "there", "anon": True}


@pytest.mark.parametrize("how", ["profile", "services", "fsspec", "unencrypted option"])
def test_plain_http_is_told_wherever_it_was_configured(how, tmp_path, monkeypatch, caplog):
    """The client is asked, not the settings."""
    monkeypatch.setattr(insecure_endpoint, "_told", set())
    place, options = "endpoint_url = http://minio4.example:9000\n", {"anon": True}
    if how == "profile":
        options = profiled(tmp_path, monkeypatch, place)
    elif how == "services":
        options = profiled(tmp_path, monkeypatch, f"services = mine\n[services mine]\ns3 =\n  {place}")
    elif how == "fsspec":
        monkeypatch.setattr("fsspec.config.conf", {"s3": {"endpoint_url": "http://minio4.example:9000"}})
    else:
        options = {"anon": True, "use_ssl": False, "client_kwargs": {"region_name": "eu-west-1"}}
    for _ in range(2):
        _ = open_store(Location.parse("s3://b/r"), options).server
    assert caplog.text.count("without encryption") == (2 if how == "unencrypted option" else 1)


@pytest.mark.parametrize("url", ["simplecache::http://files.example/run", "filecache::ftp://files.example/run"])
def test_plain_http_behind_a_cache_is_told(url, caplog, monkeypatch):
    """A chained URL names it further on."""
    monkeypatch.setattr(insecure_endpoint, "_told", set())
    insecure_endpoint.warn_once(Location.parse(url), {})
    assert caplog.text.count("without encryption") == 1


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://b/r", {"anon": True, "client_kwargs": {"verify": False, "endpoint_url": "https://minio5.example"}}),
        ("https://files.example/run", {"ssl": False}),
        ("https://files.example/run", {"client_kwargs": {"connector_kwargs": {"verify_ssl": False}}}),
    ],
)
def test_a_certificate_that_nobody_looks_at_is_told(url, options, caplog, monkeypatch):
    """It encrypts, to whoever answers."""
    monkeypatch.setattr(insecure_endpoint, "_told", set())
    _ = open_store(Location.parse(url), options).server
    assert caplog.text.count("without a look at its certificate") == 1
