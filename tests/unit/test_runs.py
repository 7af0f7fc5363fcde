"""Runs found below a prefix, and how they are ranked."""

import dataclasses
import inspect
from pathlib import Path

import pytest
from records import checkpoint, seal, terms

from remote_ckpt import find_runs
from remote_ckpt.errors import BucketNotFoundError, InvalidRequestError, LocationError
from remote_ckpt.location import Location
from remote_ckpt.records import Manifest, Series
from remote_ckpt.run import Run
from remote_ckpt.run.discovery import FoundRun
from remote_ckpt.run.leaderboard import leaderboard
from remote_ckpt.run.options import RunOptions, WriterOptions
from remote_ckpt.saving.spool import Spool
from remote_ckpt.saving.writer import SeriesOptions
from remote_ckpt.stores import open_store


def fill(url, *scores, options=None, **rules):
    """Make a run, as training would."""
    spool = Spool(Location.parse(url))
    for number, score in enumerate(scores):
        seal(spool, number, score, rules=terms(**rules))
    spool.close()
    run = Run(url, storage_options=options)
    assert len(run.recover()) == len(scores)
    return run


def test_runs_are_found_in_folders_of_any_depth(tmp_path):
    """In the order of their names, each with its manifest."""
    for name in ("b", "a/deep/er", "a/x"):
        fill(tmp_path / "all" / name, 0.5)
    found = list(find_runs(tmp_path / "all"))
    assert [one.name for one in found] == ["a/deep/er", "a/x", "b"]
    assert [one.run.url for one in found] == [f"{tmp_path}/all/{one.name}" for one in found]
    assert all(one.run.best.id == "id0" and one.manifest.revision for one in found)


def test_the_prefix_itself_may_be_a_run(tmp_path):
    """Its name is empty."""
    fill(tmp_path / "run", 0.5)
    fill(tmp_path / "run" / "below", 0.5)
    assert [one.name for one in find_runs(tmp_path / "run")] == ["", "below"]


def test_hidden_folders_are_passed_over(tmp_path):
    """What tools keep there is no run."""
    fill(tmp_path / "all" / "run", 0.5)
    for hidden in (".git", "run/.remote_ckpt"):
        (tmp_path / "all" / hidden / "x").mkdir(parents=True)
        (tmp_path / "all" / hidden / "x" / "manifest.json").write_text("{}")
    assert [one.name for one in find_runs(tmp_path / "all")] == ["run"]


def test_a_broken_manifest_is_told_and_does_not_end_the_search(tmp_path):
    """Other programs have manifests too."""
    fill(tmp_path / "b", 0.5)
    for name in ("a", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text('{"name": "an app"}')
    found = list(find_runs(tmp_path))
    assert [(one.name, one.problem is None) for one in found] == [("a", False), ("b", True), ("c", False)]
    assert "not a manifest" in found[0].problem


def test_a_folder_with_a_field_or_a_suffix_in_its_name_is_a_run_all_the_same(tmp_path):
    """Though a URL of that form would be a filename template."""
    names = ["model.keras", "lr={x}"]
    for name in names:
        location = Location.parse(tmp_path).below(name)
        spool = Spool(location)
        seal(spool, 0, 0.5)
        spool.close()
        Run(location).recover()
    found = list(find_runs(tmp_path))
    assert [one.name for one in found] == sorted(names)
    assert all(Path(one.run.best.url).is_file() for one in found)


def test_a_template_is_no_prefix(tmp_path):
    """The message says what to write."""
    with pytest.raises(LocationError, match="Name the folder"):
        find_runs(tmp_path / "w-{epoch}.weights.h5")


def test_nothing_there_is_no_run(tmp_path):
    """Not an error: a sweep may not have begun."""
    assert list(find_runs(tmp_path / "nowhere")) == []


def test_a_search_has_an_end(tmp_path):
    """Too many objects are refused instead of listed for hours."""
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("")
    store = open_store(Location.parse(tmp_path))
    assert store.find("1.txt", most=3) == ["1.txt"]
    with pytest.raises(InvalidRequestError, match="more than 2 objects"):
        store.find("1.txt", most=2)


def test_runs_are_found_in_any_filesystem():
    """Here in fsspec's memory."""
    for name in ("one", "two"):
        fill(f"memory://found/{name}", 0.5)
    assert [one.name for one in find_runs("memory://found")] == ["one", "two"]


@pytest.mark.parametrize("server", ["seaweedfs", "fake_gcs"], indirect=True)
def test_runs_are_found_in_a_bucket(server, prefix):
    """With one session for all manifests."""
    for name in ("one", "two"):
        fill(server.url(f"{prefix}/{name}"), 0.5, 0.25, options=server.storage_options)
    found = list(find_runs(server.url(prefix), storage_options=server.storage_options))
    assert [one.name for one in found] == ["one", "two"]
    assert found[1].run.best.id == "id1"


def test_a_missing_bucket_is_no_empty_one(get_server):
    """A typo must not look like an experiment that has not begun."""
    server = get_server("seaweedfs")
    with pytest.raises(BucketNotFoundError):
        list(find_runs("s3://no-such-bucket-here/x", storage_options=server.storage_options))


def found(name, *series):
    manifest = Manifest(revision=1, series={f"{number}.weights.h5": one for number, one in enumerate(series)})
    return FoundRun(name, Run(f"/runs/{name}"), manifest)


def series(*scores, monitor="val_loss", mode="min", first=0):
    made = Series(monitor=monitor, mode=mode)
    for number, score in enumerate(scores, first):
        made = made.with_checkpoint(checkpoint(number, score))
    return made


def test_the_best_run_comes_first():
    """A run without a number comes last, one without checkpoints nowhere."""
    runs = [found("a", series(0.5, 0.4)), found("b", series(float("nan"))), found("c", series(0.3)), found("d")]
    ((judge, standings),) = leaderboard(runs).items()
    assert judge == ("val_loss", "min")
    assert [one.name for one in standings] == ["c", "a", "b"]
    assert [(one.count, one.best and one.best.epoch) for one in standings] == [(1, 0), (2, 1), (1, None)]


def test_runs_that_are_judged_differently_are_not_compared():
    """The metric of most runs comes first; a run may stand under two."""
    accuracy = series(0.8, monitor="val_accuracy", mode="max", first=5)
    runs = [found("a", series(0.5)), found("b", accuracy), found("c", series(0.2), accuracy)]
    groups = leaderboard([*runs, found("d", series(0.1))])
    assert [one.name for one in groups["val_loss", "min"]] == ["d", "c", "a"]
    assert [one.name for one in groups["val_accuracy", "max"]] == ["b", "c"]


def test_series_of_one_run_that_are_judged_alike_are_one_line():
    """Of the best of them, with the number of all."""
    ((standing,),) = leaderboard([found("a", series(0.5, 0.6), series(0.4, first=7))]).values()
    assert (standing.score, standing.count, standing.latest) == (0.4, 3, checkpoint(7).created)


def test_a_direction_that_is_none_is_refused(tmp_path):
    """Before anything is written."""
    with pytest.raises(ValueError, match="'auto', 'min' or 'max'"):
        Run(tmp_path / "run").writer("{epoch}.weights.h5", mode="lowest")
    with pytest.raises(ValueError, match="'auto', 'min' or 'max'"):
        Run(tmp_path / "run").push("w.weights.h5", score=1.0, mode="lowest")
    assert not (tmp_path / "run").exists()


def test_what_type_checkers_know_is_what_is_taken():
    """The options of a run and of a writer, by name."""
    assert set(RunOptions.__annotations__) == set(inspect.signature(Run.__init__).parameters) - {"self", "url"}
    scored = {field.name for field in dataclasses.fields(SeriesOptions)} - {"monitor", "mode"}
    assert set(WriterOptions.__annotations__) == scored | {"spool_limit"}


def test_a_pull_into_a_folder_overwrites_nothing(tmp_path):
    """The name comes from the bucket; a file that the user names is the user's to replace."""
    run = fill(tmp_path / "run", 0.5)
    there = tmp_path / "here" / "w-00.weights.h5"
    there.parent.mkdir()
    there.write_text("mine")
    with pytest.raises(LocationError, match="exists already, and was not overwritten"):
        run.pull("best", to=there.parent)
    assert there.read_text() == "mine"
    assert list(there.parent.iterdir()) == [there]
    assert run.pull("best", to=there) == there
    assert there.read_bytes() != b"mine"


def test_a_pull_into_a_folder_may_be_repeated(tmp_path):
    """The very same bytes are there already."""
    run = fill(tmp_path / "run", 0.5)
    assert run.pull("best", to=tmp_path) == run.pull("best", to=tmp_path)


def test_a_pull_into_a_folder_follows_no_link(tmp_path):
    """One that dangles would have made a file wherever it leads."""
    run = fill(tmp_path / "run", 0.5)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "w-00.weights.h5").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LocationError):
        run.pull("best", to=tmp_path / "here")
    assert not (tmp_path / "elsewhere").exists()
