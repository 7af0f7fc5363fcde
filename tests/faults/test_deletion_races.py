"""Deletions that meet other writers: what is named by then, or not ours, stays. Others act between our requests."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta, timezone

import boto3
import pytest
from records import TEMPLATE, seal, terms

from remote_ckpt.errors import AccessDeniedError, InvalidRequestError
from remote_ckpt.location import Location
from remote_ckpt.manifest import Committer
from remote_ckpt.run import Run
from remote_ckpt.saving import publisher as publisher_module
from remote_ckpt.saving.publisher import Publisher
from remote_ckpt.saving.spool import Spool
from remote_ckpt.stores import Expect, ObjectInfo, Transfer, TransferReport, Version, open_store
from remote_ckpt.stores.gcs import components
from remote_ckpt.testing.faulty import DENIED, FaultyStore, Refuse, on

FIXED = "best.weights.h5"
SHOWN = terms(alias="best", keep_best=1, keep_last=1)
FEW = terms(keep_best=1, keep_last=1)
DAYS = timedelta(days=1)
PLACES = ["local", "memory", "seaweedfs", "fake_gcs"]


class World:
    """A run in some store, and as many machines as a test needs; each has a spool of its own."""

    def __init__(self, url, options, folder):
        self.url, self.options, self.folder = url, options, folder
        self.location = Location.parse(url)
        self.run = Run(url, storage_options=options, spool_dir=folder / "spool-of-run")

    def store(self):
        return FaultyStore(open_store(self.location, dict(self.options), transfer=Transfer(deadline=30.0)))

    def publisher(self, store=None):
        store = store or self.store()
        return Publisher(store, self.location, Committer(store, self.location))

    def spool(self, name):
        return Spool(self.location, self.folder / name)

    def weights(self):
        return sorted(found.key for found in self.run.store.scan() if found.key.endswith(".h5"))

    def upload_only(self, entry):
        """Bring the object there, and fail to commit it."""
        publisher = self.publisher()
        publisher.store.plan = on("write", DENIED, key="manifest.json")
        with pytest.raises(AccessDeniedError):
            publisher.publish(entry, TransferReport())

    def age(self, key, days=3):
        """Make a local object as old as one that waited in a spool."""
        then = time.time() - days * 24 * 3600
        os.utime(self.folder / "run" / key, (then, then))

    def intact(self):
        return [verdict.problem for verdict in self.run.verify()] == [None] * len(self.run.checkpoints)


@pytest.fixture
def world(tmp_path):
    return World(str(tmp_path / "run"), {}, tmp_path)


@pytest.fixture(params=PLACES)
def anywhere(request, get_server, prefix, tmp_path):
    if request.param == "local":
        return World(str(tmp_path / "run"), {}, tmp_path)
    if request.param == "memory":
        return World(f"memory://{prefix}", {}, tmp_path)
    server = get_server(request.param)
    return World(server.url(prefix), dict(server.storage_options), tmp_path)


def fixed(spool, number, score=0.5, **changes):
    return seal(
        spool, number, score, rules=SHOWN, series=FIXED, key=f".remote_ckpt/best-{number}.weights.h5", **changes
    )


def publish(publisher, entry):
    return publisher.publish(entry, TransferReport())


def acting(store, verb, act, *, key=None):
    """Let another machine act, once, before a call of ours is done."""
    store.plan = on(verb, lambda _, really: (act(), really())[1], key=key, times=1)
    return store


# Sweep


def test_what_is_committed_while_a_sweep_runs_survives_it(world):
    """It had waited for days; its turn comes when the sweep has already listed it, and read the manifest."""
    spool = world.spool("a")
    publish(world.publisher(), fixed(spool, 0))
    late = fixed(spool, 2, 0.1)
    world.upload_only(late)
    orphan = ".remote_ckpt/best-1.weights.h5"
    world.run.store.write(orphan, b"", expect=Expect.ANYTHING)
    for key in (orphan, late.record.key):
        world.age(key)
    world.run._store = acting(world.store(), "delete", lambda: publish(world.publisher(), late), key=orphan)
    assert world.run.sweep(DAYS) == [orphan]
    assert world.run.best.id == "id2"
    assert world.intact()


def test_a_name_that_a_new_object_took_while_a_sweep_ran_is_spared(world):
    """The old one was listed; by its turn the name is a young one's."""
    publish(world.publisher(), fixed(world.spool("a"), 0))
    key = ".remote_ckpt/orphan.weights.h5"
    world.run.store.write(key, b"old", expect=Expect.ANYTHING)
    world.age(key)
    world.run._store = acting(
        world.store(), "delete", lambda: world.publisher().store.write(key, b"new", expect=Expect.ANYTHING), key=key
    )
    assert world.run.sweep(DAYS) == []
    assert world.run.store.read(key, limit=10)[0] == b"new"


def test_a_sweep_a_moment_before_the_commit_costs_nothing(world):
    """An object of days ago may be deleted at any moment: it is sent again, and nothing is named that is not there."""
    spool = world.spool("a")
    publish(world.publisher(), fixed(spool, 0))
    late = fixed(spool, 1, 0.1)
    world.upload_only(late)
    world.age(late.record.key)

    sweeping = acting(world.store(), "write", lambda: world.run.sweep(DAYS), key="manifest.json")
    publish(world.publisher(sweeping), late)
    assert world.run.best.id == "id1"
    assert world.intact()


def test_without_a_manifest_a_sweep_deletes_nothing(world, caplog):
    """What it named is not known any more; the objects are all that is left."""
    publish(world.publisher(), fixed(world.spool("a"), 0))
    world.age(".remote_ckpt/best-0.weights.h5")
    (world.folder / "run/manifest.json").unlink()
    assert world.run.sweep(DAYS) == []
    assert (world.folder / "run/.remote_ckpt/best-0.weights.h5").exists()
    assert "left alone" in caplog.text


def test_a_sweep_of_a_server_that_lists_no_uploads_tells_what_it_deleted(world, caplog):
    """Some answer 501 to that."""
    publish(world.publisher(), fixed(world.spool("a"), 0))
    key = ".remote_ckpt/orphan.weights.h5"
    world.run.store.write(key, b"", expect=Expect.ANYTHING)
    world.age(key)
    world.run._store = world.store()
    world.run._store.plan = on("sweep_uploads", Refuse(InvalidRequestError))
    assert world.run.sweep(DAYS) == [key]
    assert "not swept" in caplog.text


def test_what_took_long_to_upload_is_looked_for_after_its_commit(world, monkeypatch):
    """S3 dates an object by the beginning of its upload, so a sweep takes one that has just come for an old one."""
    monkeypatch.setattr(publisher_module, "_LONG", -1.0)
    spool = world.spool("a")
    publish(world.publisher(), fixed(spool, 0))
    late = fixed(spool, 1, 0.1)

    def sweep():
        world.age(late.record.key)
        assert world.run.sweep(DAYS) == [late.record.key]

    publish(world.publisher(acting(world.store(), "write", sweep, key="manifest.json")), late)
    assert world.intact()


# Retention and prune


def test_retention_spares_what_another_machine_has_just_confirmed(anywhere):
    """Both hold equal bytes under one name; the other's answer was lost before, so it does not look whose it is."""
    ours, theirs = anywhere.spool("a"), anywhere.spool("b")
    publish(anywhere.publisher(), seal(ours, 1, 0.5, data=b"same", rules=FEW))
    other = seal(theirs, 1, 0.6, data=b"same", id="theirs000001")
    other.journal.save({"key": other.record.key})
    store = anywhere.store()
    acting(store, "stat", lambda: publish(anywhere.publisher(), other), key="w-01.weights.h5")
    publish(anywhere.publisher(store), seal(ours, 2, 0.1, rules=FEW))
    assert "theirs000001" in {record.id for record in anywhere.run.checkpoints}
    assert anywhere.intact()


@pytest.mark.parametrize("gone", ["deleted", "put back"])
def test_retention_deletes_nothing_on_a_manifest_that_was_lost(world, gone, caplog):
    """It names less than it should, and so would be no protection."""
    spool, path = world.spool("a"), world.folder / "run/manifest.json"
    publish(world.publisher(), seal(spool, 1, 0.5, rules=FEW))
    earlier = path.read_bytes()
    store = world.store()
    acting(
        store,
        "stat",
        lambda: path.unlink() if gone == "deleted" else path.write_bytes(earlier),
        key="w-01.weights.h5",
    )
    publish(world.publisher(store), seal(spool, 2, 0.1, rules=FEW))
    assert (world.folder / "run/w-01.weights.h5").exists()
    assert "older than it was" in caplog.text


def test_prune_spares_a_name_that_is_committed_again_meanwhile(world):
    """The user has freed the name, and another machine gives it to a new checkpoint."""
    spool = world.spool("a")
    for number, score in enumerate((0.1, 0.9, 0.5)):
        publish(world.publisher(), seal(spool, number, score))

    def again():
        (world.folder / "run/w-01.weights.h5").unlink()
        publish(world.publisher(), seal(world.spool("b"), 1, 0.95, id="theirs000001"))

    world.run._store = acting(world.store(), "stat", again, key="w-01.weights.h5")
    assert [record.id for record in world.run.prune(keep_last=1)] == ["id1"]
    assert world.run.find("theirs000001").key == "w-01.weights.h5"
    assert world.intact()


# Unfinished uploads


def client(server):
    options = server.storage_options
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=options["key"],
        aws_secret_access_key=options["secret"],
    )


def unfinished(server, prefix):
    found = client(server).list_multipart_uploads(Bucket=server.bucket, Prefix=prefix).get("Uploads", [])
    return sorted(item["Key"].removeprefix(f"{prefix}/") for item in found if item["Key"].startswith(prefix))


OURS = ["w-07.weights.h5", "w-07-abc123.weights.h5", "w-07-abc123-2.weights.h5", ".remote_ckpt/x.weights.h5"]
THEIRS = [
    "video.mp4",
    "w-final.weights.h5",
    "other.weights.h5",
    "w-07.keras",
    "sub/w-07.weights.h5",
    "sub/.remote_ckpt/x.weights.h5",
]


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_a_sweep_aborts_only_uploads_that_its_series_can_have_begun(server, prefix, tmp_path):
    """Other people's, and those of runs in folders below, go on."""
    world = World(server.url(prefix), dict(server.storage_options), tmp_path)
    publish(world.publisher(), seal(world.spool("a"), 1))
    for key in OURS + THEIRS:
        client(server).create_multipart_upload(Bucket=server.bucket, Key=f"{prefix}/{key}")
    assert sorted(world.run.sweep(timedelta(0))) == sorted(OURS)
    assert unfinished(server, prefix) == sorted(THEIRS)


@pytest.mark.parametrize("server", ["moto"], indirect=True)
def test_an_upload_that_was_resumed_a_moment_ago_is_not_aborted(server, prefix, tmp_path):
    """It began long ago (moto dates all uploads to the year 2010), and its last part has just come."""
    world = World(server.url(prefix), dict(server.storage_options), tmp_path)
    publish(world.publisher(), seal(world.spool("a"), 1))
    begun = {"Bucket": server.bucket, "Key": f"{prefix}/w-02.weights.h5"}
    begun["UploadId"] = client(server).create_multipart_upload(**begun)["UploadId"]
    client(server).upload_part(**begun, PartNumber=1, Body=b"part")
    assert world.run.sweep(DAYS) == []
    assert unfinished(server, prefix) == ["w-02.weights.h5"]
    assert world.run.sweep(timedelta(seconds=-1)) == ["w-02.weights.h5"]


def test_components_of_an_upload_that_goes_on_are_kept_together():
    """Its first one is days old, and its last has just come; another upload's are all old."""
    now = datetime.now(timezone.utc)

    def part(name, days):
        return ObjectInfo(f".remote_ckpt/components/{name}", 1, Version("1"), modified=now - timedelta(days=days))

    parts = [part("live/part-1", 5), part("live/part-2", 0), part("dead/part-1", 5), part("dead/part-2", 4)]
    assert components.abandoned(parts, now - DAYS) == parts[2:]


# Commits that fail


@pytest.mark.parametrize("size", [1000, 9 << 20])
def test_a_commit_that_fails_again_and_again_sends_nothing_again(anywhere, size):
    """Each time another process tries; there is one object, and its bytes crossed the network once."""
    spool, report = anywhere.spool("a"), TransferReport()
    entry = seal(spool, 1, data=os.urandom(size))
    for _ in range(10):
        publisher = anywhere.publisher()
        publisher.store.plan = on("write", DENIED, key="manifest.json")
        with pytest.raises(AccessDeniedError):
            publisher.publish(entry, report)
    anywhere.publisher().publish(entry, report)
    assert report.sent + report.reused == size
    assert anywhere.weights() == ["w-01.weights.h5"]
    assert anywhere.run.series[TEMPLATE].checkpoints[0].key == "w-01.weights.h5"
    assert anywhere.intact()


@pytest.mark.parametrize("size", [1000, 9 << 20])
def test_a_process_killed_between_upload_and_commit_leaves_one_object(anywhere, size):
    """Nothing could be noted after the upload; the next process finds its own object by what was noted before."""
    entry = seal(anywhere.spool("a"), 1, data=os.urandom(size))
    for _ in range(10):
        publisher, notes = anywhere.publisher(), {}

        def look(call, notes=notes):
            if call.verb == "upload":
                notes.update(entry.journal.load())

        publisher.store.watch = look
        publisher.store.plan = on("write", DENIED, key="manifest.json")
        with pytest.raises(AccessDeniedError):
            publish(publisher, entry)
        entry.journal.save(notes)  # as they were when the upload ended
    publish(anywhere.publisher(), entry)
    assert anywhere.weights() == ["w-01.weights.h5"]
    assert anywhere.intact()


def test_a_disk_that_keeps_no_notes_costs_no_second_object(anywhere, monkeypatch):
    """A full one, say: the names that were tried are not forgotten in this process."""
    entry, publisher = seal(anywhere.spool("a"), 1), anywhere.publisher()
    monkeypatch.setattr(type(entry.journal), "save", lambda self, state: None)
    publisher.store.plan = on("write", DENIED, key="manifest.json", times=10)
    for _ in range(10):
        with pytest.raises(AccessDeniedError):
            publish(publisher, entry)
    publish(publisher, entry)
    assert anywhere.weights() == ["w-01.weights.h5"]
