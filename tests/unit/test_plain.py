"""State as plain JSON: everything a callback may keep comes back as it was."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import checkpoint

from remote_ckpt.errors import ManifestError
from remote_ckpt.location import Location
from remote_ckpt.records import Manifest, Series
from remote_ckpt.records.state_json import MAX_BYTES, decode, encode

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
NAMES = st.text(max_size=10).filter(lambda name: not name.startswith("$"))
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=15
)


def through_json(value):
    return decode(json.loads(json.dumps(encode(value), allow_nan=False)))


@given(VALUES)
def test_plain_values_survive(value):
    """Infinities and texts that look like numbers included."""
    assert through_json(value) == value


def test_nan_survives():
    """Inside lists, as in a History."""
    assert all(math.isnan(value) for value in through_json({"loss": [math.nan, float("nan")]})["loss"])


def test_numpy_scalars_become_numbers():
    """They are what logs and scores often are."""
    assert through_json([np.float32(0.5), np.int64(3), np.bool_(True), (1, 2)]) == [0.5, 3, True, [1, 2]]


@pytest.mark.parametrize("wrong", [np.zeros(2), object(), {1: 2}, {"$float": 1}, b"bytes", {"deep": [{"er": set()}]}])
def test_what_does_not_travel_is_refused(wrong):
    """With the place where it is."""
    with pytest.raises(ValueError, match="state"):
        encode(wrong)


def test_endless_nesting_is_refused():
    """A list that holds itself."""
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="levels deep"):
        encode(endless)


def series_of(*records):
    series = Series(monitor="val_loss", mode="min")
    for record in records:
        series = series.with_checkpoint(record)
    return series


RIDERS = {"EarlyStopping": {"best": {"$float": "-inf"}, "wait": 2}}


def test_only_the_best_and_the_latest_keep_their_riders():
    """So that a manifest of a long run does not grow by them."""
    series = series_of(*(checkpoint(n, score, riders=RIDERS) for n, score in enumerate((0.5, 0.1, 0.3, 0.2))))
    assert [record.epoch for record in series.checkpoints if record.riders] == [1, 3]


def test_riders_survive_the_manifest():
    """As JSON that anybody can read."""
    location = Location.parse("memory://run")
    manifest = Manifest().with_series("w-{epoch:02d}.weights.h5", series_of(checkpoint(1, riders=RIDERS)))
    again = Manifest.parse(manifest.dump(), location)
    assert again.series["w-{epoch:02d}.weights.h5"].find("latest").riders == RIDERS
    assert again.dump() == manifest.dump()


@pytest.mark.parametrize(
    "hostile",
    [
        '{"A": {"x": "' + "y" * MAX_BYTES + '"}}',
        '{"A": 3}',
        '{"A": {"x": NaN}}',
        '{"A": {"x": ' + "[" * 900 + "]" * 900 + "}}",
        "{" + ",".join(f'"{n}": {{}}' for n in range(101)) + "}",
    ],
    ids=["large", "shape", "nan", "deep", "many"],
)
def test_hostile_riders_in_a_manifest_are_a_clear_error(hostile):
    """The manifest comes from a bucket that anybody may have written to."""
    location = Location.parse("memory://run")
    manifest = Manifest().with_series("w-{epoch:02d}.weights.h5", series_of(checkpoint(1, riders={"A": {}})))
    data, changed = re.subn(
        r'"riders": \{.*?\}\s*\}', lambda _: f'"riders": {hostile}', manifest.dump().decode(), flags=re.S
    )
    assert changed == 1
    with pytest.raises(ManifestError, match=r"riders|nested too deeply") as caught:
        Manifest.parse(data.encode(), location)
    assert len(str(caught.value)) < 1000
