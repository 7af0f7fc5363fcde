"""Two servers with a bucket of one name: nothing crosses over, however each of them was named."""

from __future__ import annotations

import json
import logging

import pytest
from records import TEMPLATE, seal
from typer.testing import CliRunner

from remote_ckpt.cli._app import app
from remote_ckpt.errors import RemoteCkptError, StoreError
from remote_ckpt.location import Location
from remote_ckpt.run import Run
from remote_ckpt.saving.spool import Spool
from remote_ckpt.saving.writer import SeriesOptions, Writer
from remote_ckpt.stores import Transfer, identity, open_store, probe_cache
from remote_ckpt.testing.servers import start_moto

HOWS = ["options", "client_kwargs", "environment", "profile", "services", "fsspec"]


@pytest.fixture(scope="module")
def pair(get_server):
    """Production and staging: two servers that both have a bucket "checkpoints"."""
    with start_moto() as staging:
        yield get_server("moto"), staging


@pytest.fixture
def reach(tmp_path, monkeypatch):
    """A function from a server and a way of naming it to the storage options of a run on it."""

    def named(server, how):
        keys = {"key": server.storage_options["key"], "secret": server.storage_options["secret"]}
        monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
        monkeypatch.setattr("fsspec.config.conf", {})
        if how == "options":
            return {**keys, "endpoint_url": server.endpoint}
        if how == "client_kwargs":
            return {**keys, "client_kwargs": {"endpoint_url": server.endpoint}}
        if how == "environment":
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
            return keys
        if how == "fsspec":
            monkeypatch.setattr("fsspec.config.conf", {"s3": {"endpoint_url": server.endpoint}})
            return keys
        configuration = tmp_path / "config"
        place = f"endpoint_url = {server.endpoint}\n"
        services = f"services = mine\n[services mine]\ns3 =\n  {place}" if how == "services" else place
        secrets = f"aws_access_key_id = {keys['key']}\naws_secret_access_key = {keys['secret']}\n"
        configuration.write_text(f"[profile there]\nregion = us-east-1\n{secrets}{services}")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(configuration))
        return {"profile": "there"}

    return named


def leave(run: Run, number: int = 0, score: float = 0.1) -> None:
    """Seal a checkpoint for a run and end, as a process does that was killed before its upload."""
    spool = run._spool()
    seal(spool, number, score)
    spool.close()


def records(run: Run) -> list[str]:
    return [record.id for record in run.checkpoints]


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("how", HOWS)
def test_what_waits_for_another_server_is_never_published(pair, prefix, reach, how, turn):
    """It was the best of production, once; now it waits until its own server is named. Whichever was first."""
    production, staging = pair[::turn]
    url = production.url(prefix)
    leave(Run(url, storage_options=reach(staging, how)))
    here = Run(url, storage_options=reach(production, how))
    assert (here.pending(), here.recover(), records(here)) == ([], [], [])
    there = Run(url, storage_options=reach(staging, how))
    assert [record.id for record in there.recover()] == records(there) == ["id0"]


@pytest.mark.parametrize("how", HOWS)
def test_one_server_is_one_place_however_it_is_named(pair, prefix, reach, how):
    """Options at the crash, a profile at the restart: the checkpoint is found."""
    server = pair[1]
    leave(Run(server.url(prefix), storage_options=reach(server, "options")))
    assert len(Run(server.url(prefix), storage_options=reach(server, how)).recover()) == 1


def test_the_start_of_training_names_what_waits_for_another_server(pair, prefix, reach, caplog):
    """How many, where, for whom; and it is not published."""
    production, staging = pair
    for number in range(2):
        leave(Run(production.url(prefix), storage_options=reach(staging, "options")), number)
    run = Run(production.url(prefix), storage_options=reach(production, "options"))
    with caplog.at_level(logging.WARNING, "remote_ckpt"), run.writer(TEMPLATE):
        pass
    assert "2 checkpoints wait in" in caplog.text
    assert f"on {staging.endpoint}; they are not for this server ({production.endpoint})" in caplog.text
    assert records(run) == []


@pytest.mark.parametrize("command", ["recover", "doctor"])
def test_the_command_line_names_what_waits_for_another_server(pair, prefix, reach, command):
    """And the exit code is that of a success: nothing is wrong with this server."""
    production, staging = pair
    leave(Run(production.url(prefix), storage_options=reach(staging, "options")))
    words = [f"{name}={value}" for name, value in reach(production, "options").items()]
    options = [word for one in words for word in ("-O", one)]
    result = CliRunner(env={"COLUMNS": "500"}).invoke(app, [command, production.url(prefix), *options])
    assert result.exit_code == 0
    assert f"on {staging.endpoint}; it is not for this server ({production.endpoint})" in " ".join(
        result.output.split()
    )


def test_an_earlier_versions_checkpoint_is_named_and_recovered_on_request(pair, prefix, reach, caplog):
    """Its server was not noted: training does not guess, and whoever recovers names the server."""
    production, _ = pair
    url = production.url(prefix)
    spool = Spool(Location.parse(url))
    seal(spool)
    spool.close()
    run = Run(url, storage_options=reach(production, "options"))
    with caplog.at_level(logging.WARNING, "remote_ckpt"), run.writer(TEMPLATE):
        pass
    assert "the server was not noted" in caplog.text
    assert records(run) == []
    assert len(run.pending()) == 1
    assert [record.id for record in run.recover()] == ["id0"]


def test_an_earlier_versions_checkpoint_of_a_local_run_is_taken_up(tmp_path):
    """There is only one server that it can be for."""
    run = Run(tmp_path / "run")
    leave(run)
    (note,) = tmp_path.rglob("id0.json")
    old = json.loads(note.read_text())
    old["server"] = None
    note.write_text(json.dumps(old))
    with run.writer(TEMPLATE):
        pass
    assert records(run) == ["id0"]


def test_what_waits_for_another_server_takes_no_room_from_this_one(pair, prefix, reach):
    """A limit is of what this run has; the rest is nobody's to free."""
    production, staging = pair
    leave(Run(production.url(prefix), storage_options=reach(staging, "options")))
    spool = Run(production.url(prefix), storage_options=reach(production, "options"))._spool()
    spool.adopt()
    assert spool.used() == 0


def test_a_server_that_cannot_be_found_out_costs_no_checkpoint():
    """A profile that does not exist: sealed all the same, and reported as unnoted."""
    run = Run("s3://checkpoints/run", storage_options={"profile": "nobody"})
    with pytest.raises(StoreError):
        _ = run.store.server
    leave(run)
    assert len(Spool(run.location).waiting()) == 1


@pytest.mark.parametrize("how", ["profile", "services", "fsspec", "environment"])
def test_what_one_server_can_do_is_not_believed_of_another(get_server, prefix, reach, how):
    """rclone ignores preconditions: as "aws", it passed for a server that has them, and commits were lost."""
    strict, careless = get_server("moto"), get_server("rclone")
    probe_cache.forget()
    for server, honest in ((strict, True), (careless, False)):
        store = open_store(Location.parse(server.url(prefix)), reach(server, how))
        assert store.probe().many_writers is honest


@pytest.mark.parametrize(
    ("endpoint", "partition", "name"),
    [
        ("https://s3.amazonaws.com", "aws", "aws"),
        ("https://s3.eu-west-1.amazonaws.com", "aws", "aws"),
        ("https://s3-fips.dualstack.us-east-1.amazonaws.com", "aws", "aws"),
        ("https://s3-accelerate.amazonaws.com", "aws", "aws"),
        ("https://bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com", "aws", "aws"),
        ("https://s3.cn-north-1.amazonaws.com.cn", "aws-cn", "aws-cn"),
        ("http://ec2-1-2-3-4.compute-1.amazonaws.com:9000", "aws", "http://ec2-1-2-3-4.compute-1.amazonaws.com:9000"),
        ("https://s3.mine.elb.amazonaws.com", "aws", "https://s3.mine.elb.amazonaws.com"),
        ("https://s3.amazonaws.com.evil.example", "aws", "https://s3.amazonaws.com.evil.example"),
        ("https://User:secret@Minio.example:443/base/?token=x#y", "aws", "https://minio.example/base"),
        ("http://[::1]:9000", "aws", "http://[::1]:9000"),
    ],
)
def test_a_servers_name_is_stable_and_holds_no_secret(endpoint, partition, name):
    """All of AWS in a partition is one place; a machine in EC2 is another."""
    assert identity.of_s3(endpoint, partition) == name


def test_a_bucket_of_aws_is_one_place_from_every_region():
    """The client is made, and nothing is sent."""
    names = {
        open_store(Location.parse("s3://b/r"), {"anon": True, "client_kwargs": {"region_name": region}}).server
        for region in ("us-east-1", "eu-central-1", "us-gov-west-1")
    }
    assert names == {"aws", "aws-us-gov"}


def test_emulators_of_google_are_places_of_their_own():
    """And Google is one, in each universe."""
    named = [
        open_store(Location.parse("gs://b/r"), {"token": "anon", **options}).server
        for options in ({}, {"endpoint_url": "http://127.0.0.1:1"}, {"endpoint_url": "http://127.0.0.1:2/"})
    ]
    assert named == ["https://storage.googleapis.com", "http://127.0.0.1:1", "http://127.0.0.1:2"]


def test_a_model_saved_for_a_server_that_is_away_is_not_another_ones_best(pair, prefix, reach, caplog):
    """The whole way: training while staging is down, then training on production under the same URL."""
    from models import model

    production = pair[0]
    url, away = production.url(prefix), {"key": "k", "secret": "s", "endpoint_url": "http://127.0.0.1:9"}
    run = Run(url, storage_options=away, transfer=Transfer(deadline=0.5))
    writer = Writer(run.location.with_template(TEMPLATE), run.store, SeriesOptions(), spool=run._spool())
    writer.open(unread=True)
    writer.save(model(), epoch=0, logs={"val_loss": 0.001})
    with pytest.raises(RemoteCkptError):
        writer.close(timeout=5.0)
    here = Run(url, storage_options=reach(production, "options"))
    with caplog.at_level(logging.WARNING, "remote_ckpt"), here.writer(TEMPLATE) as writer:
        writer.save(model(), epoch=0, logs={"val_loss": 0.5})
    assert here.best.score == 0.5
    assert "on http://127.0.0.1:9; it is not for this server" in caplog.text


def test_a_filesystem_without_an_adapter_is_named_by_where_it_is():
    """Not by its password, nor by how it is tuned."""
    import fsspec

    class Somewhere(fsspec.AbstractFileSystem):
        protocol = "somewhere"

    near = Somewhere(host="nas.example", port=22, password="hunter2", timeout=5, skip_instance_cache=True)
    far = Somewhere(host="other.example", port=22, password="hunter2", skip_instance_cache=True)
    assert identity.of_filesystem(near) == "host=nas.example port=22"
    assert identity.of_filesystem(far) != identity.of_filesystem(near)


@pytest.mark.parametrize("how", HOWS)
def test_a_server_behind_a_cache_is_named_as_its_client_resolved_it(pair, reach, how):
    """The cache has no server; what it wraps has."""
    options = reach(pair[1], how)
    store = open_store(Location.parse("simplecache::s3://checkpoints/run"), {"s3": options})
    assert store.server == pair[1].endpoint


def test_nothing_waiting_asks_no_client(monkeypatch):
    """`recover` on a machine with nothing to recover starts as quickly as ever."""
    run = Run("s3://checkpoints/run")
    monkeypatch.setattr(type(run), "store", property(lambda _: pytest.fail("the store was opened")))
    assert (run.pending(), run.elsewhere()) == ([], [])
