"""What is taken for a URL, what is refused because it only looks like one, and what is masked."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from remote_ckpt.errors import LocationError
from remote_ckpt.location import Location
from remote_ckpt.run import Run
from remote_ckpt.urls import redact


class Cloudlike:
    """What cloudpathlib's and UPath's objects share: text that is the URL. To ask for a path would download it."""

    storage_options = {"endpoint_url": "http://127.0.0.1:9"}  # noqa: RUF012 - as UPath's instances have it

    def __init__(self, url):
        self.url = url

    def __str__(self):
        return self.url

    def __fspath__(self):
        raise AssertionError("the object would have been downloaded")


class Pathlike:
    """An object with a path, and no pathlib.Path."""

    def __fspath__(self):
        return "runs/w.keras"


@pytest.mark.parametrize(
    ("text", "likely"),
    [
        (" s3://bucket/run/w.keras", "s3://bucket/run/w.keras"),
        ("s3://bucket/run\n", "s3://bucket/run"),
        ("\ufeffs3://bucket/run", "s3://bucket/run"),
        ('"s3://bucket/run"', "s3://bucket/run"),
        ("'gs://bucket/run", "gs://bucket/run"),
        ("“s3://bucket/run”", "s3://bucket/run"),
        ("'runs/w.keras'", "runs/w.keras"),
        ("s3//bucket/run", "s3://"),
        ("s3:bucket/run", "s3://"),
        ("s3;//bucket/run", "s3://"),
        ("s3:\\\\bucket\\run", "s3://"),
        ("gs:/bucket/run", "gs://"),
        ("s3:://bucket/run", "s3://bucket/run"),
        ("S3://bucket/run", "s3://bucket/run"),
        ("dbfs:/runs/w.keras", "/dbfs/runs/w.keras"),
        ("wasbs:/c@a/run", "wasbs://"),
        ("madeup:/a/run", "madeup://"),
        ("arn:aws:s3:::bucket/run", "s3://bucket/run"),
        (
            "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine",
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/mine",
        ),
        ("bucket.s3.amazonaws.com/run", "s3://bucket/run"),
        ("storage.googleapis.com/bucket/run", "https://storage.googleapis.com/bucket/run"),
        ("s3://s3://bucket/run", "s3://bucket/run"),
        ("s3://$BUCKET/run", "s3://bucket/run"),
        ("s3://{epoch}/w.keras", "s3://bucket/run"),
        ("memory://{epoch}.keras", "memory://"),
        ("memory://w.keras", "memory://"),
        ("s3://w.keras", "s3://"),
        (Path("s3://bucket/run"), "s3://"),
    ],
)
def test_what_looks_like_a_url_and_is_none_is_refused_with_the_likely_correction(text, likely):
    """Each of these has been a folder on this machine, all night long, or an error about something else."""
    with pytest.raises(LocationError) as caught:
        Location.parse(text)
    assert likely in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        *("s3://b/run?versionId=abc", "s3://b/run#1", "gs://b/run/w-{epoch}.keras#123", "http://h/run?sig=hunter2"),
        *("s3://b/a\\b", "s3://b/../other", "s3://b/./run", "sftp://h/run/../w.keras"),
    ],
)
def test_what_a_runs_url_cannot_mean_is_refused(text):
    """A version, a fragment, a way up: the run would be somewhere else than its URLs say."""
    with pytest.raises(LocationError) as caught:
        Location.parse(text)
    assert "hunter2" not in str(caught.value)


def test_a_slash_in_a_password_is_refused_without_a_part_of_it():
    """The client would call a half of it a port, in its error."""
    with pytest.raises(LocationError, match="%2F") as caught:
        Location.parse("sftp://me:hunter/two@host/run")
    assert "hunter" not in str(caught.value)
    assert "two" not in str(caught.value)


@pytest.mark.parametrize("text", ["s3://b/w-{val_loss:#.3g}.keras", "memory://a/{loss:?>4}.keras"])
def test_a_fields_format_may_hold_anything(text):
    """A number sign there is no fragment."""
    assert Location.parse(text).template == text.rpartition("/")[2]


@pytest.mark.parametrize("text", ["s3://b//run/w.keras", "s3://b///run/w.keras", "gs://b//run/w.keras"])
def test_an_empty_beginning_of_a_key_is_nowhere(text):
    """Objects were stored under run/, and their URLs named //run."""
    location = Location.parse(text)
    assert location.run == location.root == f"{location.protocol}://b/run"
    assert location.url("w.keras") == f"{location.protocol}://b/run/w.keras"


@pytest.mark.parametrize("text", ["file:///x/runs/w.keras", "local:///x/runs/w.keras", "/x/runs/w.keras"])
def test_all_names_of_this_machines_disks_mean_the_same(text):
    """As for fsspec."""
    location = Location.parse(text)
    assert (location.protocol, location.root) == ("file", "/x/runs")


def test_a_relative_path_behind_local_is_relative(tmp_path, monkeypatch):
    """As for fsspec: not a folder "local:"."""
    monkeypatch.chdir(tmp_path)
    assert Location.parse("local://runs/w.keras").root == str(tmp_path / "runs")


def test_an_object_in_a_bucket_is_its_url():
    """Never the file that it would download."""
    location = Location.parse(Cloudlike("s3://b/run/w-{epoch}.keras"))
    assert (location.run, location.template) == ("s3://b/run", "w-{epoch}.keras")


def test_what_an_object_holds_for_its_filesystem_counts():
    """UPath's endpoint is part of where it is; what is given beside it wins."""
    assert Run(Cloudlike("s3://b/run")).store.server == "http://127.0.0.1:9"
    there = Run(Cloudlike("s3://b/run"), storage_options={"endpoint_url": "http://127.0.0.1:10"})
    assert there.store.server == "http://127.0.0.1:10"


def test_a_path_is_a_path():
    """Of pathlib, and of whoever has `__fspath__`."""
    assert Location.parse(PurePosixPath("runs/w.keras")).run == "runs"
    assert Location.parse(Pathlike()).run == "runs"


@pytest.mark.parametrize("wrong", [None, b"s3://b/run", 5, object()])
def test_what_is_neither_is_refused(wrong):
    """By our error."""
    with pytest.raises(LocationError):
        Location.parse(wrong)


@pytest.mark.parametrize(
    ("text", "likely"), [("s4://b/run", "'s3://'"), ("gss://b/run", "'gs://'"), ("zz9://b/run", "")]
)
def test_an_unknown_protocol_is_refused_when_the_run_is_named(text, likely):
    """Not at the first save; and no filesystem is imported for it."""
    with pytest.raises(LocationError, match="Nothing is known to keep") as caught:
        Run(text)
    assert likely in str(caught.value)


@pytest.mark.parametrize(
    "text", ["./s3:/b", "/x/s3://b", "runs:2026/a", "s3x", "s3/b", "C:/runs/a", "a.b/c", "memory/x"]
)
def test_a_folder_that_cannot_be_taken_for_a_url_is_a_folder(text):
    """Colons and names of stores included."""
    assert Location.parse(text).protocol == "file"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sftp://u:a/b@h/run", "sftp://u:***@h/run"),
        ("sftp://u@h:22/run", "sftp://u@h:22/run"),
        ("sftp://h:22/a@b", "sftp://h:22/a@b"),
        ("http://[::1]:9000/a@b", "http://[::1]:9000/a@b"),
        ("https://ghp_abc@h/run", "https://***@h/run"),
        ("abfs://container@account.dfs.core.windows.net/run", "abfs://container@account.dfs.core.windows.net/run"),
        ("simplecache::https://t0ken@h/x", "simplecache::https://***@h/x"),
        ("https://h/x?a=1&X-Amz-Signature=77aa&b=2", "https://h/x?a=1&X-Amz-Signature=***&b=2"),
        ("https://h/x?sig=77aa%3D", "https://h/x?sig=***"),
        ("no answer from 'https://t0ken@h/x?token=77aa'.", "no answer from 'https://***@h/x?token=***'."),
        ("s3://bucket/a:b@c", "s3://bucket/a:b@c"),
    ],
)
def test_what_is_secret_in_a_url_is_masked(text, shown):
    """Also inside of somebody else's message."""
    assert redact(text) == shown
