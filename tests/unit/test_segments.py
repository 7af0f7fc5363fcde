"""The older past of a series: what moves, what stays, what comes back, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import TEMPLATE, checkpoint

from remote_ckpt.errors import InvalidRequestError, ManifestError, ObjectNotFoundError
from remote_ckpt.location import Location
from remote_ckpt.manifest.segment_store import SegmentStore
from remote_ckpt.manifest.segments import AT_HAND, LENGTH, SIZES, frozen, layout, segments_of, thawed
from remote_ckpt.records import Manifest, Segment, Series
from remote_ckpt.stores import Version

RUN = Location.parse("s3://bucket/run")
MOST = AT_HAND + LENGTH  # entries at hand, before the older ones move


@dataclass
class Bucket:
    """The two verbs that an archive uses, over a dict."""

    objects: dict[str, bytes] = field(default_factory=dict)
    reads: int = 0

    def read(self, key, *, limit):
        self.reads += 1
        if key not in self.objects:
            raise ObjectNotFoundError(key)
        if len(self.objects[key]) > limit:
            raise InvalidRequestError(key)
        return self.objects[key], Version("")

    def write(self, key, data, *, expect):
        self.objects[key] = data
        return Version("")


def commits(*numbers, scores=None, start=None, bucket=None, hold=False):
    """Commit one checkpoint after the other, as `Committer` does, and return the series that the manifest names."""
    series = start or Series(monitor="val_loss", mode="min")
    bucket = bucket if bucket is not None else Bucket()
    for number in numbers:
        series = series.with_checkpoint(checkpoint(number, (scores or {}).get(number, 1.0)))
        manifest = Manifest().with_series(TEMPLATE, series)
        manifest, objects = SegmentStore(bucket, RUN).frozen(
            manifest, segments_of(manifest), [TEMPLATE] if hold else ()
        )
        bucket.objects |= objects
        series = manifest.series[TEMPLATE]
    return series


def ids(items):
    return [item.id for item in items]


def test_a_short_run_has_no_segments():
    """Its manifest holds everything."""
    series = commits(*range(MOST - 1))
    assert series.segments == ()
    assert len(series.checkpoints) == len(series.history) == MOST - 1


def test_the_manifest_of_a_long_run_holds_the_recent_past_the_best_and_the_latest():
    """However long it gets."""
    series = commits(*range(1000), scores={3: 0.1})
    assert len(series.history) < MOST
    assert ids(series.checkpoints) == ["id3", *ids(series.history)]
    assert (series.best, series.latest) == ("id3", "id999")
    assert sum(segment.entries for segment in series.segments) + len(series.history) == 1000
    assert sum(segment.records for segment in series.segments) + len(series.checkpoints) == 1000


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from([None, float("nan"), float("inf"), 0.0, 1.0, 2.0, 3.0]), min_size=1, max_size=900),
    st.randoms(use_true_random=False),
)
def test_what_moved_comes_back_as_it_was(scores, chance):
    """In the order of commits, with the best and the latest that a manifest without segments would have."""
    bucket, numbers = Bucket(), list(range(len(scores)))
    chance.shuffle(numbers)  # the order of capture is not that of commits
    given = dict(zip(numbers, scores, strict=True))
    plain = Series(monitor="val_loss", mode="min")
    for number in numbers:
        plain = plain.with_checkpoint(checkpoint(number, given[number]))
    series = commits(*numbers, scores=given, bucket=bucket)
    assert (series.best, series.latest) == (plain.best, plain.latest)
    whole = SegmentStore(bucket, RUN).whole(TEMPLATE, series)
    assert whole.model_dump_json() == plain.model_dump_json()


def test_what_came_back_is_frozen_into_the_same_segments():
    """Nothing is written again, when nothing has changed."""
    bucket = Bucket()
    series = commits(*range(500), bucket=bucket)
    known = {segment.sha256: segment for segment in series.segments}
    again, objects = frozen(TEMPLATE, SegmentStore(bucket, RUN).whole(TEMPLATE, series), known, hold=False)
    assert objects == {}
    assert again == series


def test_a_manifest_names_few_segments_however_long_the_run_is():
    """Ten of one size become one."""
    assert max(len(layout(units * LENGTH)) for units in range(1000)) <= 9 + 9 + 9
    assert [sum(layout(units * LENGTH)) for units in range(1000)] == [units * LENGTH for units in range(1000)]
    bucket = Bucket()
    series = commits(*range(AT_HAND + 10 * LENGTH - 1), bucket=bucket)
    assert [segment.entries for segment in series.segments] == [LENGTH] * 9
    series = commits(AT_HAND + 10 * LENGTH, start=series, bucket=bucket)
    assert [segment.entries for segment in series.segments] == [SIZES[1]]
    series = commits(*range(1000, 1000 + LENGTH), start=series, bucket=bucket)
    assert [segment.entries for segment in series.segments] == [SIZES[1], LENGTH]
    assert len(SegmentStore(bucket, RUN).whole(TEMPLATE, series).checkpoints) == AT_HAND + 11 * LENGTH


def test_a_segment_that_cannot_be_read_does_not_hold_up_commits(caplog):
    """It stays as it is, and so do its neighbours."""
    bucket = Bucket()
    series = commits(*range(AT_HAND + 10 * LENGTH - 1), bucket=bucket)
    del bucket.objects[series.segments[3].key]
    series = commits(*range(1000, 1000 + 2 * LENGTH), start=series, bucket=bucket)
    assert [segment.entries for segment in series.segments] == [LENGTH] * 11
    assert "is missing" in caplog.text


def test_large_records_stay_in_small_segments(monkeypatch):
    """Whether they move one after the other, or come back and move again."""
    monkeypatch.setattr("remote_ckpt.manifest.segments.MAX_MERGED_BYTES", 40_000)
    bucket = Bucket()
    series = commits(*range(AT_HAND + 11 * LENGTH), bucket=bucket)
    assert all(segment.size <= 40_000 for segment in series.segments)
    whole = SegmentStore(bucket, RUN).whole(TEMPLATE, series)
    again, objects = frozen(TEMPLATE, whole, {}, hold=False)
    bucket.objects |= objects
    assert all(segment.size <= 40_000 for segment in again.segments)
    assert SegmentStore(bucket, RUN).whole(TEMPLATE, again) == whole


def test_pruning_replaces_only_the_segments_that_held_what_went():
    """The history outlives it."""
    bucket = Bucket()
    series = commits(*range(500), bucket=bucket)
    whole = SegmentStore(bucket, RUN).whole(TEMPLATE, series).without({"id150"})
    again, objects = frozen(TEMPLATE, whole, {segment.sha256: segment for segment in series.segments}, hold=False)
    assert len(objects) == 1
    assert [one == other for one, other in zip(again.segments, series.segments, strict=True)].count(False) == 1
    bucket.objects |= objects
    back = SegmentStore(bucket, RUN).whole(TEMPLATE, again)
    assert len(back.history) == 500
    assert "id150" not in ids(back.checkpoints)


def test_records_that_retention_looks_at_stay():
    """Only the history moves then; each commit needs them all."""
    series = commits(*range(400), hold=True)
    assert len(series.checkpoints) == 400
    assert len(series.history) < MOST
    assert [segment.records for segment in series.segments] == [0] * len(series.segments)


def test_a_checkpoint_is_known_for_ever():
    """One that was captured later than all that moved is told apart without reading."""
    bucket = Bucket()
    series = commits(*range(400), bucket=bucket)
    archive = SegmentStore(bucket, RUN)
    assert archive.knows(TEMPLATE, series, checkpoint(399))
    assert not archive.knows(TEMPLATE, series, checkpoint(400))
    assert bucket.reads == 0
    assert archive.knows(TEMPLATE, series, checkpoint(7))
    assert not archive.knows(TEMPLATE, series, checkpoint(7, id="other"))
    assert bucket.reads == 1


def test_a_manifest_names_segments_and_they_name_keys():
    """So none of these is an orphan."""
    bucket = Bucket()
    manifest = Manifest().with_series(TEMPLATE, commits(*range(300), bucket=bucket))
    assert set(bucket.objects) <= manifest.keys
    assert "w-07.weights.h5" not in manifest.keys
    assert "w-07.weights.h5" in SegmentStore(bucket, RUN).keys(manifest)
    again = Manifest.parse(manifest.dump(), RUN)
    assert segments_of(again) == segments_of(manifest)
    assert SegmentStore(bucket, RUN).frozen(again, segments_of(again))[1] == {}


def _long():
    bucket = Bucket()
    return bucket, commits(*range(300), bucket=bucket)


def _changed(bucket, series, change):
    """Return the series with its first segment replaced by other content that has a right digest."""
    raw = json.loads(bucket.objects[series.segments[0].key])
    change(raw)
    return _with_content(bucket, series, json.dumps(raw).encode())


def _with_content(bucket, series, data):
    import hashlib

    first = series.segments[0]
    bucket.objects[first.key] = data
    changed = first.model_copy(update={"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)})
    return series.model_copy(update={"segments": (changed, *series.segments[1:])})


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["checkpoints"][0].update(key="../../x"),
        lambda raw: raw["checkpoints"][0].update(size=-1),
        lambda raw: raw["checkpoints"][0].update(id=raw["checkpoints"][1]["id"]),
        lambda raw: raw["checkpoints"][0].update(id="id299"),
        lambda raw: raw["checkpoints"].pop(),
        lambda raw: raw["history"].pop(),
        lambda raw: raw["history"][0].update(id="id299"),
        lambda raw: raw["history"][0].update(created="2026-01-01T00:00:00"),
        lambda raw: raw.update(checkpoints=5),
        lambda raw: raw.pop("checkpoints"),
        lambda raw: raw.pop("history"),
    ],
)
def test_a_segment_that_is_not_what_it_must_be_is_refused(change):
    """Even one whose digest is right: whoever can write the manifest can make it so."""
    bucket, series = _long()
    with pytest.raises(ManifestError, match="s3://bucket/run"):
        SegmentStore(bucket, RUN).whole(TEMPLATE, _changed(bucket, series, change))


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b"null", b"[" * 100_000, b'{"checkpoints": [], "history": 1}'])
def test_a_segment_that_is_no_segment_is_refused(data):
    """Whatever it is."""
    bucket, series = _long()
    with pytest.raises(ManifestError, match="s3://bucket/run"):
        SegmentStore(bucket, RUN).whole(TEMPLATE, _with_content(bucket, series, data))


def test_a_segment_whose_bytes_changed_or_that_vanished_is_told():
    """With its URL, and with what still works."""
    bucket, series = _long()
    key = series.segments[0].key
    bucket.objects[key] = (
        bucket.objects[key].replace(b'"epoch": 1,', b'"epoch": 2,').replace(b'"epoch":1,', b'"epoch":2,')
    )
    for problem in ("not what was committed", "missing"):
        with pytest.raises(ManifestError, match=problem) as caught:
            SegmentStore(bucket, RUN).whole(TEMPLATE, series)
        assert f"s3://bucket/run/{key}" in str(caught.value)
        assert "can still be loaded" in str(caught.value)
        bucket.objects.pop(key, None)


def test_segments_that_are_too_much_to_read_are_not_read():
    """What a manifest says of their size is believed only as a limit."""
    bucket, series = _long()
    huge = tuple(segment.model_copy(update={"size": 60 << 20}) for segment in series.segments * 3)
    with pytest.raises(ManifestError, match="at most"):
        SegmentStore(bucket, RUN).whole(TEMPLATE, series.model_copy(update={"segments": huge}))
    assert bucket.reads == 0


@pytest.mark.parametrize(
    "change",
    [
        {"key": "../manifest.json"},
        {"key": ".remote_ckpt/segments/../../../0123456789abcdef.json"},
        {"size": 1 << 40},
        {"sha256": "x"},
        {"first": "2026-01-01T00:00:00"},
    ],
)
def test_a_manifest_that_names_something_else_as_a_segment_is_refused(change):
    """Keys stay inside the run's own folder, sizes stay bounded, times can be compared."""
    _, series = _long()
    raw = json.loads(Manifest().with_series(TEMPLATE, series).dump())
    raw["series"][TEMPLATE]["segments"][0].update(change)
    with pytest.raises(ManifestError, match="segments"):
        Manifest.parse(json.dumps(raw).encode(), RUN)


def test_ids_are_unique_across_segments():
    """One segment named twice is one too many."""
    bucket, series = _long()
    twice = series.model_copy(update={"segments": series.segments * 2})
    with pytest.raises(ManifestError, match="one id"):
        SegmentStore(bucket, RUN).whole(TEMPLATE, twice)
    assert thawed(series, []).segments == ()
    assert isinstance(series.segments[0], Segment)
