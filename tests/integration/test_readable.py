"""What no reader would take is refused before anything is written."""

from __future__ import annotations

import json

import pytest
from models import model
from records import TEMPLATE, checkpoint, seal, terms

from remote_ckpt.errors import LocationError, ManifestError
from remote_ckpt.location import MANIFEST_KEY, NameTemplate
from remote_ckpt.manifest import Committer
from remote_ckpt.records import Manifest, Series
from remote_ckpt.run import Run
from remote_ckpt.saving.publisher import Publisher
from remote_ckpt.saving.spool import Spool
from remote_ckpt.stores import Expect, TransferReport


@pytest.fixture
def run(tmp_path):
    return Run(str(tmp_path / "run"), spool_dir=tmp_path / "spool")


def manifest_bytes(run):
    return run.store.read(MANIFEST_KEY, limit=64 << 20)[0]


@pytest.fixture
def full(run):
    """A run with as many series as are ever read."""
    series = {f"s{n}.weights.h5": Series(monitor="val_loss", mode="min") for n in range(10_000)}
    data = Manifest(series=series, revision=1).model_dump_json().encode()
    run.store.write(MANIFEST_KEY, data, expect=Expect.ABSENT)
    return run


def test_one_series_too_many_is_not_committed(full):
    """The manifest stays as it was, and can be read."""
    before = manifest_bytes(full)
    with pytest.raises(ManifestError, match="10000 series"):
        Committer(full.store, full.location).commit(checkpoint(0), terms())
    assert manifest_bytes(full) == before
    assert len(full.manifest().series) == 10_000


def test_one_series_too_many_is_not_uploaded(full, tmp_path):
    """It waits in the spool, and leaves no object behind."""
    publisher = Publisher(full.store, full.location, Committer(full.store, full.location))
    with pytest.raises(ManifestError):
        publisher.publish(seal(Spool(full.location, tmp_path / "spool"), 1), TransferReport())
    assert [found.key for found in full.store.scan() if found.key.endswith(".h5")] == []


def test_one_series_too_many_is_refused_before_training(full):
    """Time must not be spent on what cannot be recorded."""
    with pytest.raises(ManifestError, match="10000 series"):
        full.writer(TEMPLATE)


def test_a_key_that_is_too_long_with_its_suffix_is_not_committed(run, tmp_path):
    """The name is taken, and the next one could not be read."""
    long = "/".join(["k" * 98] * 8) + "/" + "x" * 95 + ".weights.h5"
    assert 890 < len(long) <= 900
    spool = Spool(run.location, tmp_path / "spool")
    publisher = Publisher(run.store, run.location, Committer(run.store, run.location))
    publisher.publish(seal(spool, 1, key=long, id="abcdef000001"), TransferReport())
    before = manifest_bytes(run)
    with pytest.raises(LocationError):
        publisher.publish(seal(spool, 2, key=long, id="abcdef000002"), TransferReport())
    assert manifest_bytes(run) == before
    assert [record.id for record in run.checkpoints] == ["abcdef000001"]


def test_a_suffix_that_makes_a_key_too_long_is_refused():
    """Where the name is made."""
    with pytest.raises(LocationError):
        NameTemplate.with_suffix_before_extension("x" * 885 + ".weights.h5", "abcdef-1")


UNREADABLE = {
    "too many logs": {f"m{n}": 0.5 for n in range(10_001)},
    "a name of 1,025 characters": {"m" * 1025: 0.5},
    "half a character": {"m\ud800": 0.5},
}


@pytest.mark.parametrize("logs", UNREADABLE.values(), ids=UNREADABLE)
def test_logs_that_no_reader_takes_are_refused_at_the_save(run, logs):
    """In our words, before anything is captured or written; the next save works."""
    with run.writer(TEMPLATE) as writer:
        with pytest.raises(ManifestError, match="cannot be recorded"):
            writer.save(model(), epoch=0, logs=logs)
        writer.save(model(), epoch=1, logs={"val_loss": 0.5})
    assert [record.epoch for record in run.checkpoints] == [1]


@pytest.mark.parametrize(
    "record",
    [
        checkpoint(1).model_copy(update={"key": "k" * 901 + ".h5"}),
        checkpoint(1).model_copy(update={"writer": "w" * 1025}),
        checkpoint(1).model_copy(update={"logs": {f"m{n}": 0.5 for n in range(10_001)}}),
        checkpoint(1).model_copy(update={"note": json.loads("[" * 120 + "]" * 120)}),
        checkpoint(1).model_copy(update={"series": "s" * 1025}),
    ],
    ids=["key", "writer", "logs", "depth", "series"],
)
def test_whatever_a_reader_refuses_is_refused_by_the_commit(run, record):
    """However it came about: the manifest that is there can still be read."""
    one = Committer(run.store, run.location)
    one.commit(checkpoint(0), terms())
    before = manifest_bytes(run)
    with pytest.raises(ManifestError, match="would not be readable"):
        one.commit(record, terms())
    assert manifest_bytes(run) == before
    assert [record.id for record in run.checkpoints] == ["id0"]
