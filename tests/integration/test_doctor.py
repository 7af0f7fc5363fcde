"""`remote-ckpt doctor`: it finds what is wrong, says what to do, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from records import seal
from typer.testing import CliRunner

from remote_ckpt.cli._app import app
from remote_ckpt.cli._policy import policies
from remote_ckpt.location import Location
from remote_ckpt.run import Run
from remote_ckpt.saving.spool import Spool
from remote_ckpt.stores import open_store

CHECKS = [
    *("credentials", "bucket", "manifest", "write", "read", "preconditions", "multipart", "checksums"),
    *("throughput", "latency", "clock", "delete", "spool", "pending"),
]


def doctor(url, options=None, *more):
    """Return the exit code and the findings by check."""
    words = []
    for name, value in (options or {}).items():
        inner = value.items() if isinstance(value, dict) else [(None, value)]
        words += [f"--option={name}{f'.{key}' if key else ''}={content}" for key, content in inner]
    result = CliRunner().invoke(app, ["doctor", str(url), "--json", "--size", "9", *words, *more])
    assert result.exit_code in (0, 1), result.output
    found = json.loads(result.stdout)
    assert [finding["check"] for finding in found] == CHECKS
    return result.exit_code, {finding["check"]: finding for finding in found}


@pytest.mark.parametrize("server", ["seaweedfs", "moto", "fake_gcs"], indirect=True)
def test_all_is_well_on_a_good_server(server, prefix):
    """Every check passes, and the run is as empty as before."""
    code, found = doctor(server.url(prefix), server.storage_options)
    assert code == 0, found
    but = {"preconditions"} if server.name == "fake_gcs" else set()  # its compose ignores them
    assert {finding["check"] for finding in found.values() if finding["status"] != "ok"} == but, found
    assert found["credentials"]["told"] in ("storage_options", "none: anonymous access")
    assert "9.4 MB arrived" in found["multipart"]["told"]
    store = open_store(Location.parse(server.url(prefix)), server.storage_options)
    assert list(store.scan()) == []
    assert server.storage_options.get("secret", "no secret") not in json.dumps(found)


@pytest.mark.parametrize("server", ["rclone"], indirect=True)
def test_a_server_that_ignores_preconditions_is_a_warning(server, prefix):
    """It works, for one writer."""
    code, found = doctor(server.url(prefix), server.storage_options)
    assert code == 0, found
    assert found["preconditions"]["status"] == "warn"
    assert "Let only one process write" in found["preconditions"]["told"]


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_each_failure_says_what_to_do_and_what_depends_on_it_is_skipped(server, prefix):
    """No bucket; wrong keys; only reading allowed."""
    good = server.storage_options
    code, found = doctor("s3://nosuchbucket-at-all/run", good)
    assert (code, found["bucket"]["status"], found["write"]["status"]) == (1, "FAIL", "skip")
    assert "Create it, or correct its name" in found["bucket"]["told"]
    code, found = doctor(server.url(prefix), {**good, "secret": "wrong"})
    assert (code, found["bucket"]["status"]) == (1, "FAIL")
    assert "access key or its secret is wrong" in found["bucket"]["told"]
    code, found = doctor(server.url(prefix), {**good, "key": "reader", "secret": "reader-secret"})
    assert (code, found["manifest"]["status"], found["write"]["status"]) == (1, "ok", "FAIL")
    assert "s3:PutObject" in found["write"]["told"]
    assert {found[name]["status"] for name in ("read", "multipart", "checksums", "delete")} == {"skip"}
    assert found["spool"]["status"] == "ok"


def test_without_credentials_it_says_where_to_put_them():
    """The checks that need none are made all the same."""
    code, found = doctor("s3://bucket/run", {"endpoint_url": "http://127.0.0.1:9"})
    assert (code, found["credentials"]["status"]) == (1, "FAIL")
    assert "AWS_ACCESS_KEY_ID" in found["credentials"]["told"]
    assert found["pending"]["status"] == "ok"


def test_the_kind_of_credentials_is_told_not_what_they_are(monkeypatch):
    """From the environment, here."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAVISIBLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    from remote_ckpt.stores.credentials import describe

    told = describe(Location.parse("s3://bucket/run"), {})
    assert "environment" in told
    assert "AKIA" not in told
    assert "hunter2" not in told


def test_a_local_run_and_what_waits_for_it(tmp_path):
    """Entries that wait are a warning, with the command that uploads them."""
    spool = Spool(Location.parse(tmp_path / "run"))
    seal(spool)
    spool.close()
    code, found = doctor(tmp_path / "run")
    assert code == 0
    assert found["pending"]["status"] == "warn"
    assert "remote-ckpt recover" in found["pending"]["told"]
    assert len(Run(tmp_path / "run").pending()) == 1
    assert not [path for path in (tmp_path / "run").rglob("*") if "doctor" in path.name]


def test_for_people_each_check_is_one_line(tmp_path):
    """Status, name, what was found."""
    result = CliRunner().invoke(app, ["doctor", str(tmp_path / "run"), "--size", "9"])
    lines = result.stdout.splitlines()
    assert [line.split()[1] for line in lines] == CHECKS
    assert {line.split()[0] for line in lines} == {"ok"}


def test_help_and_policies_need_no_cloud_and_no_framework():
    """They answer at once."""
    code = (
        "import sys; import remote_ckpt.cli\n"
        "sys.argv = ['remote-ckpt', 'doctor', *sys.argv[1:]]\n"
        "try: remote_ckpt.cli.main()\n"
        "except SystemExit as exc: assert not exc.code\n"
        "unwanted = {'keras', 'tensorflow', 's3fs', 'gcsfs', 'aiobotocore', 'botocore'}\n"
        "sys.exit(', '.join(unwanted & set(sys.modules)) or 0)"
    )
    for words in (["--help"], ["--policy", "s3://bucket/run"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_policies_name_the_run_and_nothing_else():
    """Of the bucket, its name and the run's keys."""
    found = json.loads(CliRunner().invoke(app, ["doctor", "--policy", "--json", "s3://bucket/runs/a"]).stdout)
    assert found == policies("s3://bucket/runs/a")
    resources = {r for p in found.values() for s in p["Statement"] for r in s["Resource"]}
    assert resources == {"arn:aws:s3:::bucket", "arn:aws:s3:::bucket/runs/a/*"}
    assert "YOUR-BUCKET" in CliRunner().invoke(app, ["doctor", "--policy"]).stdout
    told = CliRunner().invoke(app, ["doctor", "--policy", "gs://bucket/runs/a"]).stdout
    assert "storage.objects.create,storage.objects.delete" in told
    assert "objectListPrefix" in told
    assert CliRunner().invoke(app, ["doctor", "--policy", "/tmp/run"]).exit_code == 1
