"""The commit loop on real stores: conflicts, lost answers, deleted objects."""

from __future__ import annotations

import threading

import pytest
from records import TEMPLATE, checkpoint, terms

from remote_ckpt.errors import CommitOutcomeUnknownError, ManifestError, OutcomeUnknownError
from remote_ckpt.location import MANIFEST_KEY, Location
from remote_ckpt.manifest import Committer
from remote_ckpt.retry import RetryPolicy
from remote_ckpt.stores import Expect, open_store
from remote_ckpt.stores.local import LocalStore

SOON = RetryPolicy(deadline=20.0, first_wait=0.001, longest_wait=0.05)


def committer(folder, store=None):
    location = Location.parse(str(folder))
    return Committer(store or open_store(location), location, SOON)


def put(store, *numbers):
    for number in numbers:
        store.write(f"w-{number:02d}.weights.h5", b"abc", expect=Expect.ANYTHING)


class LosesAnswers(LocalStore):
    """A local store that applies writes of the manifest and then loses the answer, `times` times."""

    times = 0

    def write(self, key, data, *, expect):
        version = super().write(key, data, expect=expect)
        if self.times and key == MANIFEST_KEY:
            self.times -= 1
            raise OutcomeUnknownError("the answer was lost")
        return version


def test_a_commit_whose_answer_was_lost_is_not_committed_twice(tmp_path):
    """The next round finds its own write."""
    store = LosesAnswers(str(tmp_path), url=str(tmp_path))
    put(store, 0)
    store.times = 1
    commit = committer(tmp_path, store).commit(checkpoint(0), terms())
    assert commit.is_best
    assert [record.id for record in commit.series.checkpoints] == ["id0"]
    assert commit.manifest.revision == 1


def test_answers_lost_until_the_time_is_up_are_told_as_unknown(tmp_path):
    """Not as a failure: the commit may be visible."""
    store = LosesAnswers(str(tmp_path), url=str(tmp_path))
    store.times = 1_000_000
    at_once = Committer(store, Location.parse(str(tmp_path)), RetryPolicy(deadline=0.0))
    with pytest.raises(CommitOutcomeUnknownError):
        at_once.commit(checkpoint(0), terms())


def test_a_stale_view_is_refreshed_before_the_next_round(tmp_path):
    """Two writers with cached manifests both get in."""
    one, two = committer(tmp_path), committer(tmp_path)
    put(one.store, 0, 1, 2)
    one.commit(checkpoint(0, 0.5), terms())
    two.commit(checkpoint(1, 0.4), terms())
    last = one.commit(checkpoint(2, 0.6), terms())
    assert [record.id for record in last.series.checkpoints] == ["id0", "id1", "id2"]
    assert not last.is_best
    assert last.series.best == "id1"


def test_a_best_whose_object_was_deleted_counts_for_nothing(tmp_path):
    """Deleting it is how a user says so."""
    one = committer(tmp_path)
    put(one.store, 0, 1)
    one.commit(checkpoint(0, 0.1), terms())
    one.store.delete("w-00.weights.h5")
    commit = one.commit(checkpoint(1, 0.9), terms())
    assert commit.is_best
    assert [record.id for record in commit.series.checkpoints if not record.missing] == ["id1"]


def test_retention_is_part_of_the_commit(tmp_path):
    """What falls out is no longer named when its object is deleted."""
    one = committer(tmp_path)
    put(one.store, 0, 1, 2)
    for number, score in enumerate((0.1, 0.9, 0.5)):
        commit = one.commit(checkpoint(number, score), terms(keep_best=1, keep_last=1))
    assert [record.id for record in commit.pruned] == ["id1"]
    assert {record.id for record in commit.series.checkpoints} == {"id0", "id2"}


def test_a_manifest_that_cannot_be_read_is_never_overwritten(tmp_path):
    """The user decides what becomes of it."""
    (tmp_path / MANIFEST_KEY).write_bytes(b"not json")
    with pytest.raises(ManifestError):
        committer(tmp_path).commit(checkpoint(0), terms())
    assert (tmp_path / MANIFEST_KEY).read_bytes() == b"not json"


def test_threads_that_commit_at_once_all_get_in(tmp_path):
    """And the best is the true best."""
    store = open_store(Location.parse(str(tmp_path)))
    put(store, *range(40))

    def work(start):
        mine = committer(tmp_path)
        for number in range(start, 40, 4):
            mine.commit(checkpoint(number, 1.0 - number / 100), terms())

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    series = committer(tmp_path).load().series[TEMPLATE]
    assert len(series.checkpoints) == 40
    assert series.best == "id39"


def test_a_name_that_was_free_for_a_moment_is_looked_at_again_in_the_next_round(tmp_path):
    """The stale view's best is gone; meanwhile another writer's best has its key."""
    slow, other = committer(tmp_path), committer(tmp_path)
    put(slow.store, 0, 1)
    slow.commit(checkpoint(0, 0.5), terms())
    slow.store.delete("w-00.weights.h5")
    scan = slow.store.scan

    def find_late(prefix=""):
        found = list(scan(prefix))
        if not other.load().of(TEMPLATE).knows("new"):
            put(other.store, 0)
            other.commit(checkpoint(0, 0.2, id="new", sha256="f" * 64), terms())
        return found

    slow.store.scan = find_late
    commit = slow.commit(checkpoint(1, 0.9), terms())
    assert commit.series.best == "new"
