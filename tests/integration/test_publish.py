"""A sealed checkpoint's way into a real store."""

from __future__ import annotations

import contextlib
import hashlib
from datetime import datetime, timedelta, timezone

import pytest
from records import TEMPLATE, seal, terms

from remote_ckpt.errors import CorruptCheckpointError, SaveFailedError, StoreError, TransientError
from remote_ckpt.location import Location
from remote_ckpt.manifest import Committer
from remote_ckpt.retry import RetryPolicy
from remote_ckpt.run import Run
from remote_ckpt.saving.publisher import Publisher
from remote_ckpt.saving.spool import Spool
from remote_ckpt.stores import TransferReport, open_store
from remote_ckpt.stores.local import LocalStore
from remote_ckpt.stores.retrying import Retrying

FIXED = "best.weights.h5"


@pytest.fixture
def run(tmp_path):
    return Run(str(tmp_path / "run"))


@pytest.fixture
def publisher(run):
    return Publisher(run.store, run.location, Committer(run.store, run.location))


@pytest.fixture
def spool(run, tmp_path):
    return Spool(run.location, tmp_path / "spool")


def publish(publisher, entry):
    return publisher.publish(entry, TransferReport())


def test_a_published_checkpoint_is_an_ordinary_file(run, publisher, spool, tmp_path):
    """Its bytes are what was sealed, and the spool is empty afterwards."""
    commit = publish(publisher, seal(spool, 1, data=b"weights"))
    assert (tmp_path / "run/w-01.weights.h5").read_bytes() == b"weights"
    assert commit.series.find("best").sha256 == hashlib.sha256(b"weights").hexdigest()
    assert run.pending() == []


def test_a_name_that_is_taken_is_never_overwritten(run, publisher, spool, tmp_path):
    """A short suffix goes before the extension."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/w-01.weights.h5").write_bytes(b"somebody's")
    commit = publish(publisher, seal(spool, 1, data=b"ours", id="abcdef123456"))
    assert (tmp_path / "run/w-01.weights.h5").read_bytes() == b"somebody's"
    assert commit.series.find("best").key == "w-01-123456.weights.h5"


def test_equal_bytes_of_another_writer_are_not_taken_for_ours(run, publisher, spool):
    """Or that writer's retention would delete what our record names."""
    publish(publisher, seal(spool, 1, data=b"same", id="first0000001"))
    commit = publish(publisher, seal(spool, 1, data=b"same", id="second000002"))
    keys = [record.key for record in commit.series.checkpoints]
    assert len(set(keys)) == 2


def test_publishing_again_after_a_crash_changes_nothing(run, publisher, spool, tmp_path, monkeypatch):
    """Killed after the commit, before the spool entry was dropped."""
    entry = seal(spool, 1)
    monkeypatch.setattr(type(entry), "drop", lambda self: None)
    publish(publisher, entry)
    monkeypatch.undo()
    spool._own.lock.release()
    done = Run(str(tmp_path / "run"), spool_dir=tmp_path / "spool").recover()
    assert [record.key for record in done] == ["w-01.weights.h5"]
    assert len(run.checkpoints) == 1
    assert [path.name for path in (tmp_path / "run").glob("*.h5")] == ["w-01.weights.h5"]


def test_a_fixed_name_shows_the_best(run, publisher, spool, tmp_path):
    """And the objects behind it are pruned as Keras keeps one file."""
    rules = terms(alias="best", keep_best=1, keep_last=1)
    for number, score in enumerate((0.5, 0.9, 0.3)):
        key = f".remote_ckpt/best-{number}.weights.h5"
        publish(publisher, seal(spool, number, score, data=b"%d" % number, rules=rules, series=FIXED, key=key))
        shown = (tmp_path / "run" / FIXED).read_bytes()
        assert shown == (b"0", b"0", b"2")[number]
    assert run.series[FIXED].alias_seen
    assert [path.name for path in (tmp_path / "run/.remote_ckpt").glob("best-*")] == ["best-2.weights.h5"]


def test_a_deleted_fixed_name_starts_its_series_anew(run, publisher, spool, tmp_path):
    """As with Keras, a worse model is then saved."""
    rules = terms(alias="best", keep_best=1, keep_last=1)
    publish(publisher, seal(spool, 1, 0.1, rules=rules, series=FIXED, key=".remote_ckpt/a.weights.h5"))
    (tmp_path / "run" / FIXED).unlink()
    commit = publish(publisher, seal(spool, 2, 0.9, rules=rules, series=FIXED, key=".remote_ckpt/b.weights.h5"))
    assert commit.is_best
    assert (tmp_path / "run" / FIXED).exists()


def test_after_a_failure_the_entry_waits_and_the_manifest_names_nothing(spool, tmp_path):
    """Here the run's folder cannot be made: a file stands in its way."""
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    location = Location.parse(str(blocked / "run"))
    store = open_store(location)
    entry = seal(spool, 1)
    with pytest.raises(StoreError):
        publish(Publisher(store, location, Committer(store, location)), entry)
    assert entry.path.exists()
    assert [waiting.record.id for waiting in spool.waiting()] == ["id1"]


def test_verify_finds_what_was_changed_or_deleted(run, publisher, spool, tmp_path):
    """One sentence for each."""
    for number in (1, 2, 3):
        publish(publisher, seal(spool, number))
    target = tmp_path / "run/w-01.weights.h5"
    target.chmod(0o600)
    target.write_bytes(b"x" * target.stat().st_size)
    (tmp_path / "run/w-02.weights.h5").unlink()
    problems = {verdict.checkpoint.id: verdict.problem for verdict in run.verify()}
    assert "sha256" in problems["id1"]
    assert problems["id2"]
    assert problems["id3"] is None


def test_pull_passes_over_a_corrupt_best_with_a_warning(run, publisher, spool, tmp_path, caplog):
    """The one before it is intact."""
    publish(publisher, seal(spool, 1, 0.5, data=b"good"))
    publish(publisher, seal(spool, 2, 0.1, data=b"best"))
    (tmp_path / "run/w-02.weights.h5").write_bytes(b"rott")
    assert run.pull("best").read_bytes() == b"good"
    assert "Passing over epoch 3" in caplog.text
    assert run.pull("best", to=tmp_path / "out.weights.h5").read_bytes() == b"good"


def test_prune_and_sweep_delete_only_what_no_manifest_names(run, publisher, spool):
    """A dry run deletes nothing."""
    for number, score in enumerate((0.1, 0.9, 0.5, 0.7)):
        publish(publisher, seal(spool, number, score))
    assert [record.id for record in run.prune(keep_last=1, dry_run=True)] == ["id1", "id2"]
    assert len(run.checkpoints) == 4
    run.prune(keep_last=1)
    assert [record.id for record in run.checkpoints] == ["id0", "id3"]
    assert {found.key for found in run.store.scan() if found.key.endswith(".h5")} == {
        "w-00.weights.h5",
        "w-03.weights.h5",
    }
    assert run.series[TEMPLATE].knows("id1")


def test_a_record_tells_when_its_object_was_complete(run, publisher, spool):
    """After the capture, before the commit; and it stays when the manifest is read again."""
    begun = datetime.now(timezone.utc)
    commit = publish(publisher, seal(spool, 1))
    uploaded = run.best.uploaded
    assert begun <= uploaded <= datetime.now(timezone.utc)
    assert commit.series.find("best").uploaded == uploaded


def test_what_a_kill_left_between_pruning_and_deleting_is_swept(run, publisher, spool, tmp_path, monkeypatch):
    """The manifest has named it once; a file that it never named may be the user's own."""
    rules = terms(keep_last=1, keep_best=1)
    publish(publisher, seal(spool, 1, 0.5, rules=rules))
    (tmp_path / "run/notes.h5").write_bytes(b"the user's own")
    monkeypatch.setattr(publisher, "_delete", lambda pruned, manifest: None)
    publish(publisher, seal(spool, 2, 0.25, rules=rules))
    assert (tmp_path / "run/w-01.weights.h5").exists()
    assert run.sweep() == []  # it is too young
    assert run.sweep(timedelta(0), dry_run=True) == ["w-01.weights.h5"]
    assert run.sweep(timedelta(0)) == ["w-01.weights.h5"]
    left = {path.name for path in (tmp_path / "run").glob("*.h5")}
    assert left == {"w-02.weights.h5", "notes.h5"}


def damage(entry):
    content = bytearray(entry.path.read_bytes())
    content[10] ^= 1
    entry.path.write_bytes(content)


def test_what_is_damaged_on_the_disk_holds_up_nothing(run, spool, tmp_path):
    """`recover` uploads the others, and says so."""
    damage(seal(spool, 1))
    seal(spool, 2)
    spool._own.lock.release()
    again = Run(run.url, spool_dir=tmp_path / "spool")
    with pytest.raises(CorruptCheckpointError, match="no longer what was sealed"):
        again.recover()
    assert [record.key for record in run.checkpoints] == ["w-02.weights.h5"]
    assert again.pending() == []


def test_nor_does_it_hold_up_a_training(run, spool, tmp_path, caplog):
    """It is lost, and told; what waits behind it is uploaded at once."""
    damage(seal(spool, 1))
    seal(spool, 2)
    spool._own.lock.release()
    writer = Run(run.url, spool_dir=tmp_path / "spool").writer(TEMPLATE)
    with pytest.raises(SaveFailedError, match="no longer what was sealed"):
        writer.flush(30.0)
    assert [record.key for record in run.checkpoints] == ["w-02.weights.h5"]
    assert "was damaged on the disk, and is lost" in caplog.text
    with contextlib.suppress(SaveFailedError):
        writer.close()


def test_a_name_that_the_user_freed_belongs_to_the_new_checkpoint_alone(run, publisher, spool, tmp_path):
    """The old record's object is gone; it must not pass for the best with the new one's bytes."""
    publish(publisher, seal(spool, 1, 0.1, data=b"old"))
    (tmp_path / "run/w-01.weights.h5").unlink()
    commit = publish(publisher, seal(spool, 1, 0.9, data=b"new", id="later0000001"))
    assert commit.is_best
    assert [record.id for record in commit.series.checkpoints] == ["later0000001"]
    assert (tmp_path / "run/w-01.weights.h5").read_bytes() == b"new"
    assert all(verdict.problem is None for verdict in run.verify())


def test_a_deletion_whose_answer_was_lost_spares_who_has_the_name_by_then(run, spool, tmp_path):
    """Another writer's checkpoint of the same epoch."""

    class Loses(LocalStore):
        def delete(self, key):
            super().delete(key)
            if key == "w-01.weights.h5" and not self.lost:
                self.lost.append(key)
                publish(other, seal(spool, 1, 0.2, data=b"theirs", rules=rules, id="theirs000001"))
                raise TransientError("the answer was lost")

    rules = terms(keep_best=1, keep_last=1)
    store = Loses(str(tmp_path / "run"), url=str(tmp_path / "run"))
    store.lost = []
    mine = Retrying(store, RetryPolicy(first_wait=0.001))
    other = Publisher(run.store, run.location, Committer(run.store, run.location))
    publisher = Publisher(mine, run.location, Committer(mine, run.location))
    for number, score in ((1, 0.5), (2, 0.4)):
        publish(publisher, seal(spool, number, score, data=b"ours%d" % number, rules=rules))
    assert store.lost
    assert (tmp_path / "run/w-01.weights.h5").read_bytes() == b"theirs"
    assert run.best.id == "theirs000001"
    assert all(verdict.problem is None for verdict in run.verify())
