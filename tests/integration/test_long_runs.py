"""A run whose older records have moved to segments behaves as one that holds everything in its manifest."""

from __future__ import annotations

import os
import shutil
import time
from datetime import timedelta

import pytest
from records import TEMPLATE, checkpoint, seal, terms

from remote_ckpt.errors import CommitConflictError, CorruptCheckpointError, ManifestError, PreconditionFailedError
from remote_ckpt.location import MANIFEST_KEY, Location
from remote_ckpt.manifest import Committer
from remote_ckpt.manifest.segments import AT_HAND, LENGTH
from remote_ckpt.retry import RetryPolicy
from remote_ckpt.run import Run
from remote_ckpt.saving.publisher import Publisher
from remote_ckpt.saving.spool import Spool
from remote_ckpt.stores import Expect, TransferReport
from remote_ckpt.stores.local import LocalStore

MANY = 400
FIRST = AT_HAND + LENGTH  # the commit that moves the first records
SEGMENTS = ".remote_ckpt/segments"


def committer(run):
    return Committer(run.store, run.location)


def made(number, score=1.0, **changes):
    return checkpoint(number, score, logs={"val_loss": score, "accuracy": number / MANY}, **changes)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """400 commits: the third is the best, the fifth the second best; the objects of a few really exist."""
    folder = tmp_path_factory.mktemp("long") / "run"
    one = committer(Run(str(folder)))
    for number in (0, 2, 4, 399):
        one.store.write(f"w-{number:02d}.weights.h5", b"abc", expect=Expect.ANYTHING)
    for number in range(MANY):
        one.commit(made(number, {2: 0.1, 4: 0.2}.get(number, 1.0)), terms())
    return folder


@pytest.fixture
def run(long_run, tmp_path):
    """A copy of the long run."""
    shutil.copytree(long_run, tmp_path / "run")
    return Run(str(tmp_path / "run"), spool_dir=tmp_path / "spool")


def ids(records):
    return [record.id for record in records]


def segments(run):
    return {found.key for found in run.store.scan(f"{SEGMENTS}/")}


def test_a_reader_sees_all_of_a_long_run(run):
    """By epoch, by id, in order; best and latest need the manifest alone."""
    series = run.series[TEMPLATE]
    assert ids(series.checkpoints) == ids(series.history) == ids(run.checkpoints) == [f"id{n}" for n in range(MANY)]
    assert series.segments == ()
    assert series.find(17).id == "id17"
    assert [verdict.checkpoint.id for verdict in run.verify(17)] == ["id17"]
    assert len(run.manifest().of(TEMPLATE).checkpoints) < MANY // 2
    for key in segments(run):
        run.store.delete(key)
    assert (run.best.id, run.latest.id) == ("id2", "id399")
    with pytest.raises(ManifestError, match="is missing"):
        _ = run.checkpoints


def test_a_commit_reads_no_segment_and_goes_on_without_them(run):
    """What is new cannot have been committed before."""
    for key in segments(run):
        run.store.delete(key)
    commit = committer(run).commit(made(MANY, 0.05), terms())
    assert commit.is_best


def test_what_was_committed_long_ago_is_not_committed_twice(run, tmp_path):
    """A spool that turns up late, of a process that died between its commit and the end."""
    manifest = run.manifest()
    assert committer(run).commit(made(7), terms()).manifest == manifest
    entry = seal(Spool(run.location, run._spool_dir), 7, 1.0)
    entry.journal.save({"key": entry.record.key})
    publisher = Publisher(run.store, run.location, committer(run))
    assert publisher.publish(entry, TransferReport()).manifest == manifest
    assert not (tmp_path / "run/w-07.weights.h5").exists()


def test_a_deleted_best_is_followed_by_the_best_of_all_that_is_left(run):
    """It may be a very old one."""
    run.store.delete("w-02.weights.h5")
    commit = committer(run).commit(made(MANY, 0.9), terms())
    assert commit.series.best == "id4"
    assert len(run.series[TEMPLATE].checkpoints) == MANY + 1
    assert run.series[TEMPLATE].find("id2").missing


def test_by_another_metric_all_records_are_asked(run):
    """Old ones win or lose by what was logged with them."""
    commit = committer(run).commit(made(MANY, 0.9), terms(monitor="accuracy", mode="max"))
    assert commit.series.best == f"id{MANY}" or commit.series.best == "id399"
    back = committer(run).commit(made(MANY + 1, 0.9), terms())
    assert back.series.best == "id2"
    assert len(run.series[TEMPLATE].checkpoints) == MANY + 2


def test_retention_reaches_the_old_records_and_then_leaves_them_alone(run):
    """One commit reads them all, the next ones none."""
    commit = committer(run).commit(made(MANY, 0.9), terms(keep_best=2, keep_last=3))
    assert ids(commit.series.checkpoints) == ["id2", "id4", "id398", "id399", f"id{MANY}"]
    assert len(commit.pruned) == MANY - 4
    assert all(segment.records == 0 for segment in commit.series.segments)
    assert len(run.series[TEMPLATE].history) == MANY + 1
    for key in segments(run):
        run.store.delete(key)
    again = committer(run).commit(made(MANY + 1, 0.9), terms(keep_best=2, keep_last=3))
    assert ids(again.series.checkpoints) == ["id2", "id4", "id399", f"id{MANY}", f"id{MANY + 1}"]


def test_prune_reaches_the_old_records(run):
    """And their history stays."""
    assert len(run.prune(keep_best=2, keep_last=1, dry_run=True)) == MANY - 3
    run.prune(keep_best=2, keep_last=1)
    assert ids(run.checkpoints) == ["id2", "id4", "id399"]
    assert len(run.series[TEMPLATE].history) == MANY
    assert committer(run).commit(made(7), terms()).manifest == run.manifest()


def test_sweep_takes_orphan_segments_and_leaves_those_in_use(run):
    """What replaced segments leave behind, a day later."""
    assert run.sweep(timedelta(0)) == []
    before = segments(run)
    run.prune(keep_best=2, keep_last=1)
    assert run.sweep() == []
    swept = set(run.sweep(timedelta(0)))
    assert swept == before - run.manifest().keys
    assert len(swept) == len(before)
    assert ids(run.checkpoints) == ["id2", "id4", "id399"]


def test_sweep_leaves_hidden_objects_that_only_a_segment_names(tmp_path):
    """The objects behind a fixed name live under the hidden folder."""
    run = Run(str(tmp_path / "run"))
    one = committer(run)
    for number in range(FIRST + 5):
        key = f".remote_ckpt/w-{number:02d}.weights.h5"
        one.store.write(key, b"abc", expect=Expect.ABSENT)
        one.commit(made(number, key=key), terms())
    assert run.manifest().of(TEMPLATE).segments
    assert run.sweep(timedelta(0)) == []


def test_a_writer_whose_view_is_older_than_a_sweep_reads_the_manifest_again(run):
    """Its segments were replaced and swept meanwhile."""
    slow = committer(run)
    slow.commit(made(MANY, 0.9), terms())
    run.prune(keep_best=2, keep_last=1)
    run.sweep(timedelta(0))
    commit = slow.commit(made(MANY + 1, 0.9), terms(keep_best=2, keep_last=3))
    assert ids(commit.series.checkpoints) == ["id2", "id4", f"id{MANY}", f"id{MANY + 1}"]


def overtaken(run, monkeypatch):
    """Let others merge, prune and sweep, right after a reader has read the manifest for the first time."""
    other = Run(run.url)
    read, pending = run.store.read, [None]

    def read_and_be_overtaken(key, *, limit):
        answer = read(key, limit=limit)
        if key == MANIFEST_KEY and pending:
            pending.pop()
            committer(other).commit(made(MANY, 0.9), terms())
            other.prune(keep_best=2, keep_last=300)
            other.sweep(timedelta(0))
        return answer

    monkeypatch.setattr(run.store, "read", read_and_be_overtaken)
    monkeypatch.setattr(run.store, "within", lambda deadline: run.store)


def open_and_close(run):
    """By another metric, for which all records are asked."""
    writer = run.writer(TEMPLATE, monitor="accuracy", mode="max")
    writer.close()
    return writer.best is not None


READERS = {
    "checkpoints": lambda run: len(run.checkpoints),
    "series": lambda run: len(run.series[TEMPLATE].checkpoints),
    "find": lambda run: run.find(390).epoch,
    "verify": lambda run: len(list(run.verify())),
    "knows": lambda run: committer(run).knows(made(7)),
    "writer": lambda run: open_and_close(run),
    "prune": lambda run: len(run.prune(keep_best=2, keep_last=1)),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_reader_whose_manifest_is_a_moment_old_reads_it_again(run, monkeypatch, read):
    """What it names was merged, pruned and swept in between; the reader sees the run as it is now."""
    overtaken(run, monkeypatch)
    assert read(run)


def test_a_fallback_reads_the_manifest_again_too(run, monkeypatch, caplog):
    """The best is damaged; the next is looked for among what is there now."""
    overtaken(run, monkeypatch)
    with pytest.raises(CorruptCheckpointError, match="No intact checkpoint"):
        run.pull("best")
    assert "Passing over epoch 5" in caplog.text


def test_a_lost_commit_leaves_an_orphan_and_nothing_else(tmp_path):
    """The segment comes first; it counts for nothing until a manifest names it."""

    class Refuses(LocalStore):
        refusing = False

        def write(self, key, data, *, expect):
            if self.refusing and key == MANIFEST_KEY:
                raise PreconditionFailedError(key)
            return super().write(key, data, expect=expect)

    store = Refuses(str(tmp_path), url=str(tmp_path))
    one = Committer(store, Location.parse(str(tmp_path)), RetryPolicy(deadline=0.0))
    for number in range(FIRST - 1):
        one.commit(made(number, -number), terms())
    store.refusing = True
    with pytest.raises(CommitConflictError, match="Other writers"):
        one.commit(made(FIRST, -FIRST), terms())
    run = Run(str(tmp_path))
    assert len(segments(run)) == 1
    assert len(run.checkpoints) == FIRST - 1
    store.refusing = False
    one.commit(made(FIRST, -FIRST), terms())
    assert len(segments(run)) == 2
    assert len(run.checkpoints) == FIRST
    old = time.time() - 2 * 86400
    for key in segments(run):
        os.utime(tmp_path / key, (old, old))
    assert len(run.sweep()) == 1
    assert len(run.checkpoints) == FIRST


def test_the_next_best_is_found_among_the_old_when_the_best_is_damaged(run, caplog):
    """A reader passes over what is not intact."""
    damaged = made(2, 0.1)
    assert run.best.sha256 == damaged.sha256
    with pytest.raises(CorruptCheckpointError, match="No intact checkpoint"):
        run.pull("best")
    assert "Passing over epoch 3" in caplog.text
    assert "Passing over epoch 5" in caplog.text


def test_a_manifest_that_would_become_too_large_to_read_is_not_written(tmp_path, monkeypatch):
    """The last one that can be read stays."""
    run = Run(str(tmp_path))
    committer(run).commit(made(0), terms())
    monkeypatch.setattr("remote_ckpt.manifest.committer.MAX_MANIFEST_BYTES", 2000)
    with pytest.raises(ManifestError, match="would grow"):
        committer(run).commit(made(1, 0.5, writer="x" * 1000), terms())
    assert ids(run.checkpoints) == ["id0"]
