"""The auditor that the fault tests rely on sees each thing that must not be; and the stores that misbehave do so."""

from __future__ import annotations

import json

import pytest
from records import TEMPLATE, checkpoint, seal, terms

from remote_ckpt.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    OutcomeUnknownError,
    PreconditionFailedError,
    TransientError,
)
from remote_ckpt.location import MANIFEST_KEY, Location
from remote_ckpt.manifest import Committer
from remote_ckpt.saving.publisher import Publisher
from remote_ckpt.saving.spool import Spool
from remote_ckpt.stores import Expect, TransferReport
from remote_ckpt.testing.audit import Auditor
from remote_ckpt.testing.conformance import StoreConformance
from remote_ckpt.testing.faulty import (
    DENIED,
    UNAVAILABLE,
    FaultyStore,
    Hang,
    LoseAnswer,
    Slow,
    Stale,
    Truncate,
    on,
)
from remote_ckpt.testing.memory import MemoryStore

FIXED = "best.weights.h5"
PLACE = Location.parse("memory-store://run")


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def auditor(store):
    return Auditor(store, PLACE)


@pytest.fixture
def publish(store, tmp_path):
    """Each publication by a new writer, which remembers nothing and so puts nothing back: the auditor has to see it."""
    spool = Spool(PLACE, tmp_path / "spool")

    def publish(number, score, **options):
        entry = seal(spool, number, score, data=b"%d" % number, **options)
        Publisher(store, PLACE, Committer(store, PLACE)).publish(entry, TransferReport())
        return entry.record

    yield publish
    spool.close()


def rewrite(store, change):
    """Change the manifest as no writer of ours would."""
    data, version = store.read(MANIFEST_KEY, limit=1 << 20)
    manifest = json.loads(data)
    change(manifest, manifest["series"][next(iter(manifest["series"]))])
    store.write(MANIFEST_KEY, json.dumps(manifest).encode(), expect=version)


def replace(store, key, data):
    store.delete(key)
    store.write(key, data, expect=Expect.ABSENT)


def test_a_sound_run_is_found_sound(auditor, publish):
    """Whatever is published, NaN among it."""
    for number, score in enumerate((0.5, float("nan"), 0.7, 0.3)):
        auditor.confirm(publish(number, score))
        auditor.look_at_rest()
    assert auditor.violations == []
    assert auditor.looks == 4
    assert len(auditor.committed[TEMPLATE]) == 4


@pytest.mark.parametrize("there", [None, b"", b"othr", b"0 and more"])
def test_an_object_that_is_missing_or_other_is_seen(auditor, publish, store, there):
    """Also when it was whole at an earlier look."""
    key = publish(0, 0.5).key
    auditor.look()
    store.delete(key)
    if there is not None:
        replace(store, key, there)
    auditor.look()
    assert "is named, and what is there" in auditor.violations[0]


def test_a_manifest_that_is_no_json_is_seen(auditor, publish, store):
    """A reader could not read it."""
    publish(0, 0.5)
    data, _ = store.read(MANIFEST_KEY, limit=1 << 20)
    replace(store, MANIFEST_KEY, data[:-9])
    auditor.look()
    assert "cannot be read" in auditor.violations[0]


def test_a_best_that_gets_worse_is_seen(auditor, publish, store):
    """By comparison with what was committed, and with the look before."""
    publish(0, 0.5)
    auditor.look()
    publish(1, 0.7)
    rewrite(store, lambda manifest, series: series.update(best="id1"))
    auditor.look()
    assert [text.split(": ")[1] for text in auditor.violations] == [
        f"the best of {TEMPLATE} is 0.7, though id0 with 0.5 was committed",
        f"the best of {TEMPLATE} went from 0.5 to 0.7",
    ]


def test_a_latest_that_is_not_the_last_captured_is_seen(auditor, publish, store):
    """Whatever the order of the commits."""
    publish(0, 0.5)
    publish(1, 0.7)
    rewrite(store, lambda manifest, series: series.update(latest="id0"))
    auditor.look()
    assert "is not the one captured last" in auditor.violations[0]


def test_a_lost_update_is_seen(auditor, publish, store):
    """Two writers, one of which wrote over the other's commit."""
    auditor.confirm(publish(0, 0.5))
    before, _ = store.read(MANIFEST_KEY, limit=1 << 20)
    auditor.confirm(publish(1, 0.7))
    auditor.look()
    assert auditor.violations == []
    replace(store, MANIFEST_KEY, before)
    auditor.look()
    text = " / ".join(auditor.violations)
    assert "revision 1 follows 2" in text
    assert "id1 was committed" in text
    assert "id1 was confirmed and is not in the manifest" in text


def test_a_confirmation_without_a_commit_is_seen(auditor, publish):
    """A flush that returned too early."""
    publish(0, 0.5)
    auditor.confirm(checkpoint(1))
    auditor.look()
    assert "id1 was confirmed" in auditor.violations[0]


def test_a_record_that_goes_without_retention_is_seen(store, publish):
    """Nobody asked for it."""
    auditor = Auditor(store, PLACE, keeps_all=True)
    publish(0, 0.5)
    publish(1, 0.3)
    rewrite(store, lambda manifest, series: series.update(checkpoints=series["checkpoints"][1:]))
    auditor.look()
    assert "with no pruning" in auditor.violations[0]


def test_a_fixed_name_that_shows_something_else_is_seen(auditor, publish, store):
    """It is what people copy."""
    rules = terms(alias="best", keep_best=1, keep_last=1)
    publish(0, 0.5, rules=rules, series=FIXED, key=".remote_ckpt/a.weights.h5")
    auditor.look_at_rest()
    assert auditor.violations == []
    replace(store, FIXED, b"x")
    auditor.look_at_rest()
    assert f"{FIXED} does not show the best" in auditor.violations[0]


def test_what_no_manifest_names_is_listed(auditor, publish, store):
    """An object whose commit never came, or whose deletion failed."""
    publish(0, 0.5)
    store.write("w-99.weights.h5", b"x", expect=Expect.ABSENT)
    assert auditor.unnamed() == ["w-99.weights.h5"]


def tampered_run(auditor, publish, store):
    """Two checkpoints of a writer, and then the manifest as it was after the first."""
    auditor.confirm(publish(0, 0.5), "a")
    before, _ = store.read(MANIFEST_KEY, limit=1 << 20)
    auditor.confirm(publish(1, 0.3), "a")
    auditor.look()
    replace(store, MANIFEST_KEY, before)
    auditor.tampered()


def test_what_a_tampering_took_is_no_violation_at_first(auditor, publish, store):
    """Whether the revision went back, or all of the manifest went, or half of it."""
    tampered_run(auditor, publish, store)
    auditor.look()
    replace(store, MANIFEST_KEY, b"{")
    auditor.tampered()
    auditor.look()
    store.delete(MANIFEST_KEY)
    auditor.tampered()
    auditor.look()
    assert auditor.violations == []


def test_what_a_living_writer_had_confirmed_must_be_back_after_its_next_commits(auditor, publish, store):
    """One commit may have been under way; the second has seen the tampering."""
    tampered_run(auditor, publish, store)
    auditor.confirm(publish(2, 0.7), "a")
    auditor.look()
    assert auditor.violations == []
    auditor.confirm(publish(3, 0.7), "a")
    auditor.look()
    assert [text.split(": ")[1] for text in auditor.violations] == ["id1 was confirmed and is not in the manifest"]


def test_a_best_worse_than_what_a_living_writer_confirmed_is_seen(auditor, publish, store):
    """Also where the history has it, and its record was dropped, though its object is there."""
    auditor.confirm(publish(0, 0.3), "a")
    auditor.confirm(publish(1, 0.2), "b")

    def forget(manifest, series):
        series.update(best="id1", checkpoints=series["checkpoints"][1:])

    rewrite(store, forget)
    auditor.look()
    assert auditor.violations == []
    store.delete("w-01.weights.h5")
    rewrite(store, lambda manifest, series: series["checkpoints"][0].update(missing=True, id="id1"))
    rewrite(store, lambda manifest, series: series.update(best=None, latest=None))
    auditor.look()
    assert "id0 with 0.3 was confirmed and is there, and is not the best" in " / ".join(auditor.violations)


def test_another_writers_commits_do_not_bring_it_back(auditor, publish, store):
    """Each has only what itself remembers."""
    tampered_run(auditor, publish, store)
    for number in (2, 3, 4):
        auditor.confirm(publish(number, 0.7), "b")
    auditor.look()
    assert auditor.violations == []


def test_what_a_dead_writer_had_confirmed_may_stay_lost(auditor, publish, store):
    """It died before or after the tampering; nobody remembers."""
    auditor.confirm(publish(7, 0.5), "before")
    auditor.died("before")
    auditor.confirm(publish(8, 0.5), "after")
    store.delete(MANIFEST_KEY)
    auditor.tampered()
    auditor.died("after")
    for number in (2, 3):
        auditor.confirm(publish(number, 0.7), "a")
    auditor.look()
    assert auditor.violations == []


def test_what_lost_its_object_in_a_tampering_need_not_come_back(auditor, publish, store):
    """There is nothing to name."""
    tampered_run(auditor, publish, store)
    store.delete("w-01.weights.h5")
    for number in (2, 3):
        auditor.confirm(publish(number, 0.7), "a")
    auditor.look()
    assert auditor.violations == []


def test_a_best_whose_object_was_taken_must_not_stay_the_best(auditor, publish, store):
    """Once a writer has committed; other records may name what was taken, until it comes back."""
    records = [publish(number, score) for number, score in enumerate((0.5, 0.3, 0.4))]
    for record in records[:2]:
        store.delete(record.key)
    auditor.tampered()
    auditor.look()
    assert auditor.violations == []
    for record in records[:2]:
        auditor.confirm(record, "a")
    auditor.look()
    assert len(auditor.violations) == 1
    assert "w-01.weights.h5 is named" in auditor.violations[0]


def test_a_record_that_is_marked_missing_counts_for_nothing_until_it_is_back(auditor, publish, store):
    """Its score is beaten by no one, and when its object is there the mark is wrong."""
    for number, score in enumerate((0.3, 0.5)):
        auditor.confirm(publish(number, score), "a")
    auditor.look()

    def mark(manifest, series):
        series["checkpoints"][0]["missing"] = True
        series["best"] = "id1"

    store.delete("w-00.weights.h5")
    auditor.tampered()
    rewrite(store, mark)
    for _ in range(2):
        auditor.confirm(publish(2, 0.7), "a")
        auditor.look()
    assert auditor.violations == []
    store.write("w-00.weights.h5", b"0", expect=Expect.ABSENT)
    auditor.look()
    assert "w-00.weights.h5 is marked missing, and is there" in auditor.violations[0]


def test_a_record_that_is_marked_missing_though_nobody_tampered_is_seen(auditor, publish, store):
    """It was ours who deleted the object."""
    publish(0, 0.3)
    store.delete("w-00.weights.h5")
    rewrite(store, lambda manifest, series: series["checkpoints"][0].update(missing=True))
    auditor.look()
    assert "w-00.weights.h5 is named, and what is there" in " / ".join(auditor.violations)


def test_other_bytes_are_never_excused(auditor, publish, store):
    """Whoever put them there."""
    auditor.confirm(publish(0, 0.5), "a")
    replace(store, "w-00.weights.h5", b"x")
    auditor.tampered()
    auditor.look()
    assert "is named, and what is there" in auditor.violations[0]


@pytest.mark.parametrize("broken", ["commits first", "writes blindly"])
def test_a_pipeline_with_a_bug_is_caught(broken, tmp_path, monkeypatch):
    """The bugs that the promises are about, put into our own pipeline: the auditor is not blind to them."""
    real = MemoryStore()
    auditor = Auditor(real, PLACE)
    store = FaultyStore(real, watch=lambda call: auditor.look())
    spools = [Spool(PLACE, tmp_path / name) for name in "ab"]
    if broken == "commits first":
        monkeypatch.setattr(Publisher, "_upload", lambda self, entry, report, progress: entry.record)
    else:
        write = MemoryStore.write
        monkeypatch.setattr(
            MemoryStore, "write", lambda self, key, data, expect: write(self, key, data, expect=Expect.ANYTHING)
        )
    publishers = [Publisher(store, PLACE, Committer(store, PLACE)) for _ in spools]
    for number in range(4):
        entry = seal(spools[number % 2], number, 1 / (number + 1), id=f"id{number}")
        publishers[number % 2].publish(entry, TransferReport())
    for spool in spools:
        spool.close()
    assert auditor.violations


class TestMemoryStore(StoreConformance):
    """The store underneath keeps every promise of the interface."""

    @pytest.fixture
    def open_run(self):
        runs = {}
        return lambda name: runs.setdefault(name, MemoryStore(f"memory-store://{name}"))


class TestFaultyStoreWithoutFaults(StoreConformance):
    """Wrapped, and left alone, a store is what it was."""

    @pytest.fixture
    def open_run(self):
        runs = {}
        return lambda name: FaultyStore(runs.setdefault(name, MemoryStore(f"memory-store://{name}")))


@pytest.fixture
def faulty(store):
    store.write("k", b"1234", expect=Expect.ABSENT)
    return FaultyStore(store)


@pytest.mark.parametrize(("fault", "error"), [(UNAVAILABLE, TransientError), (DENIED, AccessDeniedError)])
def test_a_refused_call_was_not_done(faulty, store, fault, error):
    """As often as the plan says, from the call on that it says."""
    faulty.plan = on("delete", fault, key="k", skip=1, times=2)
    faulty.delete("k")
    store.write("k", b"5", expect=Expect.ABSENT)
    for _ in range(2):
        with pytest.raises(error):
            faulty.delete("k")
    assert store.read("k", limit=9)[0] == b"5"
    faulty.delete("other")
    faulty.delete("k")
    with pytest.raises(ObjectNotFoundError):
        store.stat("k")


def test_a_lost_answer_hides_success_and_conflict_alike(faulty, store):
    """The caller of a conditional write learns that the outcome is unknown."""
    version = store.stat("k").version
    faulty.plan = on("write", LoseAnswer())
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError) as caught:
            faulty.write("k", b"new", expect=version)
    assert isinstance(caught.value.__cause__, PreconditionFailedError)
    assert store.read("k", limit=9)[0] == b"new"


def test_a_hanging_call_ends(faulty, store):
    """Done or not, its caller is told of a timeout."""
    waits = []
    faulty.plan = on("delete", Hang(30.0, sleep=waits.append))
    with pytest.raises(TransientError):
        faulty.delete("k")
    store.stat("k")
    faulty.plan = on("delete", Hang(30.0, done=True, sleep=waits.append))
    with pytest.raises(TransientError):
        faulty.delete("k")
    with pytest.raises(ObjectNotFoundError):
        store.stat("k")
    assert waits == [30.0, 30.0]


def test_a_slow_call_goes_well(faulty):
    """Only later."""
    waits = []
    faulty.plan = on("read", Slow(2.0, sleep=waits.append))
    assert faulty.read("k", limit=9)[0] == b"1234"
    assert waits == [2.0]


def test_what_is_cut_off_comes_without_an_error(faulty, tmp_path):
    """Bytes of a read, and the file of a fetch."""
    faulty.plan = lambda call: Truncate()
    assert faulty.read("k", limit=9)[0] == b"12"
    faulty.fetch("k", tmp_path / "file", size=4)
    assert (tmp_path / "file").read_bytes() == b"12"


def test_a_stale_read_shows_the_past(faulty, store):
    """Nothing at first, then what was read first."""
    faulty.plan = on("read", Stale(), times=1)
    with pytest.raises(ObjectNotFoundError):
        faulty.read("k", limit=9)
    assert faulty.read("k", limit=9)[0] == b"1234"
    store.write("k", b"new", expect=Expect.ANYTHING)
    faulty.plan = on("read", Stale())
    assert faulty.read("k", limit=9)[0] == b"1234"
