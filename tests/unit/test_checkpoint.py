"""The manifest: what it remembers, what it refuses."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import TEMPLATE, checkpoint

from remote_ckpt.errors import ManifestError, ManifestVersionError
from remote_ckpt.location import Location
from remote_ckpt.policy import best_of
from remote_ckpt.records import Manifest, Series

RUN = Location.parse("s3://bucket/run")


def series(*scores):
    made = Series(monitor="val_loss", mode="min")
    for number, score in enumerate(scores):
        made = made.with_checkpoint(checkpoint(number, score))
    return made


def manifest(*scores):
    return Manifest().with_series(TEMPLATE, series(*scores))


@given(st.lists(st.one_of(st.none(), st.floats()), max_size=8))
def test_what_was_written_is_read_again(scores):
    """NaN and infinities included, which JSON does not know."""
    written = manifest(*scores)
    read = Manifest.parse(written.dump(), RUN)
    assert read.dump() == written.dump()
    assert read.series[TEMPLATE].best == best_of(read.series[TEMPLATE].checkpoints, "min")


def test_a_checkpoint_is_recorded_once():
    """Committing it again changes nothing, also after it was pruned."""
    once = series(1.0, 2.0, 3.0)
    assert once.with_checkpoint(checkpoint(1, 2.0)) is once
    pruned, gone = once.pruned(keep_best=1, keep_last=1)
    assert [record.id for record in gone] == ["id1"]
    assert pruned.with_checkpoint(checkpoint(1, 2.0)) is pruned
    assert len(pruned.history) == 3


def test_a_worse_score_is_recorded_but_is_not_the_best():
    """The latest moves on, the best stays."""
    grown = series(0.5, 0.9, float("nan"))
    assert (grown.best, grown.latest) == ("id0", "id2")


def test_the_latest_is_the_one_captured_last_not_the_one_committed_last():
    """Uploads overtake each other."""
    late = series(0.5).with_checkpoint(checkpoint(7, 0.6)).with_checkpoint(checkpoint(3, 0.4))
    assert late.latest == "id7"


def test_retention_keeps_the_latest_by_capture_not_by_commit():
    """What comes late is not kept in its place."""
    late = series(0.1).with_checkpoint(checkpoint(7, 0.6)).with_checkpoint(checkpoint(3, 0.5))
    kept, gone = late.pruned(keep_best=None, keep_last=2)
    assert [record.id for record in kept.checkpoints] == ["id0", "id7", "id3"]
    kept, gone = late.pruned(keep_best=None, keep_last=1)
    assert [record.id for record in gone] == ["id3"]


@pytest.mark.parametrize("scores", [(None, None), (float("nan"), None)])
def test_without_a_score_there_is_a_latest_and_no_best(scores):
    """Nothing is better than the others."""
    without = series(*scores)
    assert (without.best, without.latest) == (None, "id1")
    assert without.find("best") is None


def test_a_fixed_name_shows_the_best_and_until_there_is_one_the_latest():
    """A series with fields has no fixed name."""
    shows_best = series(None, None).model_copy(update={"alias": "best"})
    assert shows_best.shown.id == "id1"
    scored = shows_best.with_checkpoint(checkpoint(2, 0.5)).with_checkpoint(checkpoint(3, 0.6))
    assert scored.shown.id == "id2"
    assert series(0.5).shown is None


def test_scores_of_pruned_checkpoints_keep_the_metric_that_they_are_of():
    """By another metric they count for nothing; by their own they do again."""
    kept, _ = series(0.5, 0.4, 0.9).pruned(keep_best=1, keep_last=1)
    by_accuracy = kept.scored_by("val_accuracy", "max")
    assert [(entry.own_score, entry.monitor) for entry in by_accuracy.history] == [
        (None, "val_loss"),
        (None, None),
        (None, None),
    ]
    again = by_accuracy.scored_by("val_loss", "min")
    assert [entry.own_score for entry in again.history] == [0.5, 0.4, 0.9]
    assert (again.best, again.latest) == ("id1", "id2")


def test_unknown_fields_survive_a_rewrite():
    """A newer minor version may have added them."""
    raw = json.loads(manifest(0.5).dump())
    raw["future"] = {"a": [1]}
    raw["series"][TEMPLATE]["more"] = "x"
    raw["series"][TEMPLATE]["checkpoints"][0]["note"] = "keep me"
    read = Manifest.parse(json.dumps(raw).encode(), RUN)
    again = json.loads(read.with_series("other.keras", Series(monitor="m", mode="max")).dump())
    assert again["future"] == {"a": [1]}
    assert again["series"][TEMPLATE]["more"] == "x"
    assert again["series"][TEMPLATE]["checkpoints"][0]["note"] == "keep me"


def test_another_metric_can_be_asked_of_what_is_there():
    """Records hold all logs."""
    judged = series(0.5, 0.4).scored_by("accuracy", "max")
    assert [record.score for record in judged.checkpoints] == [None, None]
    assert series(0.5, 0.4).scored_by("val_loss", "max").best == "id0"


def _spoilt(change):
    raw = json.loads(manifest(0.5, 0.4).dump())
    change(raw["series"][TEMPLATE])
    return json.dumps(raw).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no json",
        b"[]",
        b"null",
        b"{}",
        b'{"format": "1"}',
        b'{"format": true}',
        b'{"format": 1, "series": []}',
        b"[" * 100_000,
        b'{"format": 1, "a": ' + b"[" * 100_000,
        b"\xff\xfe\x00",
        _spoilt(lambda s: s["checkpoints"][0].update(key="../../x")),
        _spoilt(lambda s: s["checkpoints"][0].update(key="/etc/passwd")),
        _spoilt(lambda s: s["checkpoints"][0].update(size=-1)),
        _spoilt(lambda s: s["checkpoints"][0].update(size=1 << 80)),
        _spoilt(lambda s: s["checkpoints"][0].update(sha256="x")),
        _spoilt(lambda s: s["checkpoints"][0].update(id="../x")),
        _spoilt(lambda s: s["checkpoints"][0].update(id="id1")),
        _spoilt(lambda s: s.update(best="nobody")),
        _spoilt(lambda s: s.update(mode="up")),
    ],
)
def test_what_is_not_a_manifest_is_refused_and_named(data):
    """With the URL, the reason, and what to do."""
    with pytest.raises(ManifestError) as caught:
        Manifest.parse(data, RUN)
    assert isinstance(caught.value, ValueError)
    assert "s3://bucket/run/manifest.json" in str(caught.value)
    assert "Nothing was changed" in str(caught.value)


def test_a_newer_version_is_refused_with_the_remedy():
    """It is never rewritten."""
    with pytest.raises(ManifestVersionError, match="Upgrade"):
        Manifest.parse(b'{"format": 2}', RUN)
