"""What the manifest remembers of a series' last object, so that whoever comes next sends only what changed."""

from __future__ import annotations

import json
import random

import pytest
from records import TEMPLATE, checkpoint, seal, terms

from remote_ckpt.location import MANIFEST_KEY, Location
from remote_ckpt.manifest import Committer
from remote_ckpt.records import MAX_BLOCKS, Manifest, Series
from remote_ckpt.run import Run
from remote_ckpt.saving.publisher import Publisher
from remote_ckpt.saving.spool import Spool
from remote_ckpt.stores import BLOCK, TransferReport

SIZE = 3 * BLOCK + 7
DATA = random.Random(0).randbytes(SIZE)
CHANGED = DATA[:-7] + b"changed"


class Machine:
    """A process on a machine of its own: nothing but the bucket is shared."""

    def __init__(self, url, options, folder):
        self.run = Run(url, storage_options=options)
        self.spool = Spool(self.run.location, folder)
        self.committer = Committer(self.run.store, self.run.location)
        self.publisher = Publisher(self.run.store, self.run.location, self.committer)

    def publish(self, number, data, **rules):
        entry = seal(self.spool, number, data=data, blocks=True, rules=terms(**rules))
        report = TransferReport()
        self.publisher.publish(entry, report)
        return report

    def change_manifest(self, change):
        """Write what another version, or somebody else, might have written."""
        raw = json.loads(self.run.store.read(MANIFEST_KEY, limit=1 << 20)[0])
        change(raw["series"][TEMPLATE])
        version = self.run.store.stat(MANIFEST_KEY).version
        self.run.store.write(MANIFEST_KEY, json.dumps(raw).encode(), expect=version)


@pytest.fixture
def machine(get_server, prefix, tmp_path):
    """Machines that share a run on SeaweedFS."""
    server = get_server("seaweedfs")
    made = iter(range(100))
    return lambda: Machine(server.url(prefix), dict(server.storage_options), tmp_path / f"machine-{next(made)}")


def contents(machine, key, folder):
    machine.run.store.fetch(key, folder / "fetched", size=SIZE)
    return (folder / "fetched").read_bytes()


def test_another_machine_sends_only_what_changed(machine, tmp_path):
    """It has never seen the object that it copies from."""
    assert machine().publish(0, DATA).sent == SIZE
    other = machine()
    report = other.publish(1, CHANGED)
    assert (report.sent, report.reused) == (7, 3 * BLOCK)
    assert contents(other, "w-01.weights.h5", tmp_path) == CHANGED


def test_bytes_that_an_older_checkpoint_has_are_not_sent(machine, tmp_path):
    """Not only the last one is compared as a whole."""
    first = machine()
    first.publish(0, DATA)
    first.publish(1, random.Random(1).randbytes(SIZE))
    report = machine().publish(2, DATA)
    assert (report.sent, report.reused) == (0, SIZE)
    assert contents(first, "w-02.weights.h5", tmp_path) == DATA


@pytest.mark.parametrize("server_name", ["seaweedfs", "fake_gcs"])
def test_a_small_object_that_is_there_is_not_sent(get_server, prefix, tmp_path, server_name):
    """From a mebibyte on a copy is cheaper."""
    server = get_server(server_name)
    data = DATA[: 3 << 20]
    for number in range(2):
        one = Machine(server.url(prefix), dict(server.storage_options), tmp_path / str(number))
        report = one.publish(number, data)
        assert (report.sent, report.reused) == ((len(data), 0), (0, len(data)))[number]
    assert one.run.pull("latest").read_bytes() == data


def test_a_base_that_lies_costs_one_upload_of_everything(machine, tmp_path):
    """And the next delta is as good as ever."""
    first = machine()
    first.publish(0, DATA)
    lie = Series(monitor="m", mode="min").with_checkpoint(checkpoint(0))
    other = random.Random(2).randbytes(SIZE)
    entry = seal(Spool(first.run.location, tmp_path / "aside"), 9, data=other, blocks=True)
    said = lie.with_base("id0", entry.blocks).base.digests
    first.change_manifest(lambda series: series["base"].update(digests=said))
    second = machine()
    assert second.publish(1, other).sent == SIZE
    assert contents(second, "w-01.weights.h5", tmp_path) == other
    assert machine().publish(2, other[:-1] + b"x").sent == 7


@pytest.mark.parametrize(
    "base", [None, 7, {}, {"id": "id0"}, {"id": "id0", "digests": "xyz"}, {"id": "../..", "digests": ""}]
)
def test_a_base_that_is_not_to_be_understood_is_none(machine, tmp_path, base):
    """Another version may have written it; the run stays readable."""
    first = machine()
    first.publish(0, DATA)
    first.change_manifest(lambda series: series.update(base=base))
    assert machine().publish(1, CHANGED).sent == SIZE


def test_a_base_whose_record_is_gone_is_not_used(machine):
    """Its object may be deleted at any moment."""
    first = machine()
    first.publish(0, DATA)
    first.change_manifest(lambda series: series["base"].update(id="pruned"))
    assert machine().publish(1, CHANGED).sent == SIZE


def test_a_base_whose_object_is_gone_costs_its_bytes(machine, tmp_path):
    """Somebody deleted it by hand."""
    first = machine()
    first.publish(0, DATA)
    first.run.store.delete("w-00.weights.h5")
    assert machine().publish(1, CHANGED, mode="max").sent == SIZE


def test_what_retention_takes_at_once_is_no_base():
    """A series remembers what it holds."""
    series = Series(monitor="val_loss", mode="min")
    for number, score in enumerate((0.1, 0.9)):
        series = series.with_checkpoint(checkpoint(number, score)).with_base(f"id{number}", ["0" * 16])
    series, _ = series.with_checkpoint(checkpoint(2, 0.5)).pruned(keep_best=1, keep_last=1)
    assert series.base.id == "id1"
    assert series.with_base("id1", ["1" * 16]).base.digests == "0" * 16
    assert series.with_base("id2", ["1" * 16]).base.each == ("1" * 16,)


def test_a_base_is_bounded():
    """Beyond 64 GiB everything is sent, and a manifest that holds more is not believed."""
    series = Series(monitor="val_loss", mode="min").with_checkpoint(checkpoint(0))
    assert series.with_base("id0", ["0" * 16] * (MAX_BLOCKS + 1)).base is None
    raw = json.loads(Manifest().with_series(TEMPLATE, series.with_base("id0", ["0" * 16])).dump())
    raw["series"][TEMPLATE]["base"]["digests"] = "0" * 16 * (MAX_BLOCKS + 1)
    assert Manifest.parse(json.dumps(raw).encode(), Location.parse("s3://b/r")).series[TEMPLATE].base is None


def test_a_manifest_of_before_has_no_base(machine):
    """And is read as ever."""
    first = machine()
    first.publish(0, DATA)
    first.change_manifest(lambda series: series.pop("base"))
    assert machine().publish(1, CHANGED).sent == SIZE
    assert machine().publish(2, DATA).sent == 0
