"""A manifest that vanishes, goes back, or names objects that are not there, while a writer is alive."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
from models import model
from records import TEMPLATE, checkpoint, terms

from remote_ckpt.location import MANIFEST_KEY, Location
from remote_ckpt.manifest import Committer
from remote_ckpt.run import Run
from remote_ckpt.stores import Expect, open_store

FIXED = "best.weights.h5"


def committer(folder):
    location = Location.parse(str(folder))
    return Committer(open_store(location), location)


def key(number):
    return f"w-{number:02d}.weights.h5"


def add(one, number, score, rules=None, **changes):
    """Create the object, and commit it."""
    record = checkpoint(number, score, **changes)
    one.store.write(record.key, b"abc", expect=Expect.ABSENT)
    return one.commit(record, rules or terms())


def ids(records):
    return [record.id for record in records]


@pytest.fixture
def one(tmp_path):
    """A writer that has committed three checkpoints; the second is the best."""
    writer = committer(tmp_path)
    for number, score in enumerate((0.5, 0.1, 0.9)):
        add(writer, number, score)
    return writer


def test_a_manifest_that_vanishes_is_put_back_by_a_living_writer(one, tmp_path, caplog):
    """With all three records; the best does not get worse; and the log has what happened."""
    (tmp_path / MANIFEST_KEY).unlink()
    commit = add(one, 3, 0.7)
    assert not commit.is_best
    assert commit.series.best == "id1"
    assert ids(Run(str(tmp_path)).checkpoints) == ["id0", "id1", "id2", "id3"]
    assert "manifest.json has vanished" in caplog.text
    assert ids(Run(str(tmp_path)).series[TEMPLATE].history) == ["id0", "id1", "id2", "id3"]


def test_a_manifest_put_back_from_an_older_version_gets_what_it_lacks(one, tmp_path, caplog):
    """The revision goes on from the later one."""
    old = (tmp_path / MANIFEST_KEY).read_bytes()
    add(one, 3, 0.05)
    add(one, 4, 0.3)
    (tmp_path / MANIFEST_KEY).write_bytes(old)
    commit = add(one, 5, 0.2)
    assert commit.series.best == "id3"
    assert ids(commit.series.checkpoints) == [f"id{n}" for n in range(6)]
    assert commit.manifest.revision > 5
    assert "was put back from an older version (revision 3 after 5)" in caplog.text


def test_what_another_writer_committed_to_the_older_manifest_stays(one, tmp_path):
    """Even when it counts further than the one that was lost."""
    (tmp_path / MANIFEST_KEY).unlink()
    other = committer(tmp_path)
    for number in range(10, 16):
        add(other, number, 0.6)
    commit = add(one, 3, 0.7)
    assert commit.series.best == "id1"
    assert set(ids(commit.series.checkpoints)) == {"id0", "id1", "id2", "id3", *(f"id{n}" for n in range(10, 16))}
    assert not add(other, 16, 0.2).is_best


def test_several_living_writers_each_put_back_theirs(tmp_path):
    """Whoever comes first, and although each has seen another past."""
    one, two, three = committer(tmp_path), committer(tmp_path), committer(tmp_path)
    for number, (writer, score) in enumerate(((one, 0.4), (two, 0.2), (three, 0.6))):
        add(writer, number, score)
    (tmp_path / MANIFEST_KEY).unlink()
    add(one, 3, 0.9)
    add(three, 4, 0.9)
    add(two, 5, 0.9)
    series = Run(str(tmp_path)).series[TEMPLATE]
    assert sorted(ids(series.checkpoints)) == [f"id{n}" for n in range(6)]
    assert series.best == "id1"


def test_another_series_comes_back_too(one, tmp_path):
    """The whole manifest was lost, not one series of it."""
    add(one, 7, 0.3, series="other-{epoch}.weights.h5", key="other-7.weights.h5", id="other")
    (tmp_path / MANIFEST_KEY).unlink()
    add(one, 3, 0.7)
    assert set(Run(str(tmp_path)).series) == {TEMPLATE, "other-{epoch}.weights.h5"}


def test_what_was_pruned_does_not_come_back(tmp_path):
    """An older manifest names it; the writer has seen it go."""
    one, rules = committer(tmp_path), terms(keep_best=1, keep_last=1)
    add(one, 0, 0.5, rules)
    add(one, 1, 0.4, rules)
    old = (tmp_path / MANIFEST_KEY).read_bytes()
    add(one, 2, 0.3, rules)
    for number in (0, 1):
        one.store.delete(key(number))
    (tmp_path / MANIFEST_KEY).write_bytes(old)
    commit = add(one, 3, 0.6, rules)
    assert ids(commit.series.checkpoints) == ["id2", "id3"]
    assert commit.series.best == "id2"
    assert Run(str(tmp_path)).series[TEMPLATE].knows("id0")


def test_what_another_writer_pruned_does_not_come_back(one, tmp_path):
    """Its id is in the history of the manifest that is there."""
    Run(str(tmp_path)).prune(keep_last=1)
    commit = add(one, 3, 0.7)
    assert ids(commit.series.checkpoints) == ["id1", "id2", "id3"]


def test_a_long_run_comes_back_with_its_segments(tmp_path):
    """The history is whole, and committing again changes nothing."""
    one = committer(tmp_path)
    for number in range(70):
        add(one, number, 1.0 - number / 1000 if number != 5 else 0.01)
    assert one.load().of(TEMPLATE).segments
    (tmp_path / MANIFEST_KEY).unlink()
    add(one, 70, 0.8)
    series = Run(str(tmp_path)).series[TEMPLATE]
    assert ids(series.history) == ids(series.checkpoints) == [f"id{n}" for n in range(71)]
    assert series.best == "id5"
    assert one.commit(checkpoint(3, 0.997), terms()).manifest.revision == one.load().revision


def test_an_older_manifest_whose_segments_were_swept_holds_up_nothing(tmp_path):
    """It names what is gone; the writer has the rest."""
    one = committer(tmp_path)
    for number in range(70):
        add(one, number, 1.0 - number / 1000)
    old = json.loads((tmp_path / MANIFEST_KEY).read_bytes())
    add(one, 70, 0.05)
    old["series"][TEMPLATE]["segments"][0]["key"] = f".remote_ckpt/segments/{'0' * 32}.json"
    (tmp_path / MANIFEST_KEY).write_text(json.dumps(old))
    commit = add(one, 71, 0.8)
    assert commit.series.best == "id70"
    assert ids(Run(str(tmp_path)).checkpoints) == [f"id{n}" for n in range(72)]


def test_a_record_put_back_without_its_object_is_missing(one, tmp_path):
    """The best is the best of what is there."""
    (tmp_path / MANIFEST_KEY).unlink()
    one.store.delete(key(1))
    commit = add(one, 3, 0.7)
    assert commit.series.find("id1").missing
    assert commit.series.best == "id0"


def test_a_store_that_answers_with_an_old_manifest_once_is_no_loss(one, caplog, monkeypatch):
    """Nothing is logged: the conditional write was refused, and the next answer was right."""
    old = one.store.read(MANIFEST_KEY, limit=1 << 20)
    add(one, 3, 0.7)
    one._cached = None
    answers = [old]
    read = one.store.read
    monkeypatch.setattr(one.store, "read", lambda *args, **named: answers.pop() if answers else read(*args, **named))
    commit = add(one, 4, 0.8)
    assert ids(commit.series.checkpoints) == [f"id{n}" for n in range(5)]
    assert "older version" not in caplog.text


def test_a_steady_writer_asks_the_store_for_nothing_more(one, monkeypatch):
    """One write for a commit that beats the best, as ever."""
    asked = []
    for verb in ("read", "stat", "scan"):
        monkeypatch.setattr(one.store, verb, lambda *args, verb=verb, **named: asked.append(verb))
    one.commit(checkpoint(3, 0.05), terms())
    assert asked == []


def test_a_manifest_that_vanishes_after_the_last_commit_is_back_when_the_writer_closes(tmp_path, caplog):
    """Nobody else remembers it."""
    run = Run(str(tmp_path / "run"), spool_dir=tmp_path / "spool")
    with run.writer(TEMPLATE) as writer:
        for epoch, score in enumerate((0.5, 0.1)):
            writer.save(model(), epoch=epoch, logs={"val_loss": score})
        writer.flush()
        (tmp_path / "run" / MANIFEST_KEY).unlink()
    assert [record.score for record in run.checkpoints] == [0.5, 0.1]
    assert "has vanished" in caplog.text


# Missing objects


def test_a_missing_best_is_marked_and_not_forgotten(one, tmp_path, caplog):
    """The next best takes its place, and the log has it."""
    one.store.delete(key(1))
    commit = add(one, 3, 0.7)
    assert commit.series.best == "id0"
    assert ids(commit.series.checkpoints) == [f"id{n}" for n in range(4)]
    assert [record.id for record in Run(str(tmp_path)).checkpoints if record.missing] == ["id1"]
    assert "is missing: it is no longer the best" in caplog.text


def test_all_that_is_missing_is_marked_at_once(one):
    """A run that was copied in halves."""
    for number in (1, 2):
        one.store.delete(key(number))
    commit = add(one, 3, 0.7)
    assert {record.id for record in commit.series.checkpoints if record.missing} == {"id1", "id2"}


def test_half_an_object_is_missing(one, tmp_path):
    """A copy broke off within it."""
    (tmp_path / key(1)).chmod(0o600)
    (tmp_path / key(1)).write_bytes(b"a")
    assert add(one, 3, 0.7).series.best == "id0"


def test_what_is_there_again_counts_again(one, tmp_path):
    """At the next commit it is the best, as it was."""
    (tmp_path / key(1)).rename(tmp_path / "aside")
    assert add(one, 3, 0.7).series.best == "id0"
    (tmp_path / "aside").rename(tmp_path / key(1))
    commit = add(one, 4, 0.8)
    assert commit.series.best == "id1"
    assert not commit.series.find("id1").missing


def test_all_that_is_there_again_counts_again(tmp_path):
    """Also what is neither the best nor the latest, and more than is looked for one by one."""
    one = committer(tmp_path)
    for number in range(25):
        add(one, number, 0.5 + number / 100)
    (tmp_path / "aside").mkdir()
    for number in range(24):
        (tmp_path / key(number)).rename(tmp_path / "aside" / key(number))
    assert sum(record.missing for record in add(one, 25, 0.9).series.checkpoints) == 24
    for path in (tmp_path / "aside").iterdir():
        path.rename(tmp_path / path.name)
    assert not any(record.missing for record in add(one, 26, 0.9).series.checkpoints)


def test_a_reader_counts_again_what_is_there_again(one, tmp_path):
    """Although no writer is left to write it down."""
    (tmp_path / key(1)).rename(tmp_path / "aside")
    add(one, 3, 0.7)
    run = Run(str(tmp_path))
    assert run.best.id == "id0"
    (tmp_path / "aside").rename(tmp_path / key(1))
    assert run.best.id == "id1"
    assert not any(record.missing for record in run.checkpoints)


def test_what_is_missing_is_not_the_latest(one, tmp_path):
    """Nor an alias's target."""
    for number in (1, 2):
        one.store.delete(key(number))
    add(one, 3, 0.7, created=checkpoint(0).created)
    assert Run(str(tmp_path)).latest.id == "id3"


def test_retention_passes_over_what_is_missing(one):
    """It takes nobody's place, and stays."""
    one.store.delete(key(1))
    commit = add(one, 3, 0.7, terms(keep_best=1, keep_last=1))
    assert {record.id for record in commit.series.checkpoints} == {"id0", "id1", "id3"}
    assert ids(commit.pruned) == ["id2"]


def test_a_missing_best_of_a_long_run_is_looked_for_in_each_commit(tmp_path):
    """It stays at hand, however many come after it."""
    one = committer(tmp_path)
    for number in range(5):
        add(one, number, 0.1 if number == 2 else 0.5)
    (tmp_path / key(2)).rename(tmp_path / "aside")
    for number in range(5, 70):
        add(one, number, 0.5)
    assert one.load().of(TEMPLATE).best == "id0"
    (tmp_path / "aside").rename(tmp_path / key(2))
    assert add(one, 70, 0.5).series.best == "id2"


def fixed(one, number, score):
    """Commit behind a fixed name, and show it."""
    where = f".remote_ckpt/best-{number}.weights.h5"
    commit = add(one, number, score, terms(alias="best", keep_best=1, keep_last=1), series=FIXED, key=where)
    one.store.copy(commit.series.find("best").key, FIXED)
    one.change(lambda manifest: manifest.with_series(FIXED, manifest.of(FIXED).model_copy(update={"alias_seen": True})))
    return commit


def test_deleting_the_fixed_name_begins_its_series_anew(tmp_path):
    """The one way to mean it: the objects behind the name are there."""
    one = committer(tmp_path)
    fixed(one, 0, 0.1)
    one.store.delete(FIXED)
    commit = fixed(one, 1, 0.9)
    assert commit.is_best
    assert ids(commit.pruned) == ["id0"]


def test_a_fixed_name_that_is_lost_with_its_objects_was_not_deleted_on_purpose(tmp_path):
    """What was behind it is marked as missing, and counts again when it is back."""
    one = committer(tmp_path)
    fixed(one, 0, 0.1)
    hidden = tmp_path / ".remote_ckpt/best-0.weights.h5"
    hidden.rename(tmp_path / "aside")
    one.store.delete(FIXED)
    commit = fixed(one, 1, 0.9)
    assert commit.is_best
    assert commit.pruned == ()
    (tmp_path / "aside").rename(hidden)
    assert fixed(one, 2, 0.8).series.best == "id0"


def test_a_fixed_name_of_a_run_that_is_missing_as_a_whole_was_not_deleted_on_purpose(tmp_path):
    """Two commits while another, empty folder stands in the run's place."""
    one = committer(tmp_path / "run")
    fixed(one, 0, 0.1)
    (tmp_path / "run").rename(tmp_path / "aside")
    for number in (1, 2):
        assert fixed(one, number, 0.9).series.find("id0").missing
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "aside").rename(tmp_path / "run")
    assert fixed(one, 3, 0.8).series.best == "id0"


def test_one_wrong_answer_does_not_cost_the_best(one, monkeypatch):
    """A listing has to agree before an object counts as missing."""
    from remote_ckpt.errors import ObjectNotFoundError

    stat, wrong = one.store.stat, [key(1)]

    def once(name):
        if name in wrong:
            wrong.remove(name)
            raise ObjectNotFoundError(name)
        return stat(name)

    monkeypatch.setattr(one.store, "stat", once)
    assert add(one, 3, 0.7).series.best == "id1"


@pytest.fixture(autouse=True)
def _all_logs(caplog):
    caplog.set_level(logging.INFO, logger="remote_ckpt")
