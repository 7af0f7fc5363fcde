"""Which score is better, and what is kept."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_ckpt.policy import best_of, infer_mode, is_better, retained

scores = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
modes = st.sampled_from(["min", "max"])


@dataclass(frozen=True)
class Record:
    id: str
    score: float | None


def records(values):
    return [Record(str(i), value) for i, value in enumerate(values)]


@given(scores, scores, modes)
def test_nan_never_wins_and_never_blocks_a_number(score, best, mode):
    """None behaves the same."""
    if score is None or math.isnan(score):
        assert not is_better(score, best, mode)
    elif best is None or math.isnan(best):
        assert is_better(score, best, mode)
    else:
        assert is_better(score, best, mode) == (score < best if mode == "min" else score > best)


@given(st.lists(scores, min_size=1), modes)
def test_the_best_is_what_no_other_beats(values, mode):
    """The first among equals; the last when there is no number at all."""
    found = best_of(records(values), mode)
    best = values[int(found)]
    assert not any(is_better(value, best, mode) for value in values)
    if all(value is None or math.isnan(value) for value in values):
        assert found == str(len(values) - 1)
    else:
        assert int(found) == next(i for i, value in enumerate(values) if value == best)


@given(st.lists(scores, min_size=1), modes, st.integers(1, 5), st.integers(1, 5))
def test_retention_always_keeps_the_best_and_the_latest(values, mode, keep_best, keep_last):
    """And never more than both rules ask for."""
    kept = retained(records(values), mode, keep_best, keep_last)
    assert str(len(values) - 1) in kept
    assert best_of(records(values), mode) in kept
    assert len(kept) <= keep_best + keep_last


def test_without_rules_everything_is_kept():
    """As Keras does."""
    assert retained(records([1.0, 2.0]), "min", None, None) == {"0", "1"}


@pytest.mark.parametrize(
    ("monitor", "direction", "mode"),
    [
        ("val_loss", None, "min"),
        ("val_auc", None, "max"),
        ("val_precision", None, "max"),
        ("val_accuracy", None, "max"),
        ("mae", None, "min"),
        ("val_mine", "up", "max"),
        ("val_mine", "down", "min"),
        ("out_loss", "up", "min"),
    ],
)
def test_the_direction_is_inferred_where_keras_raises(monitor, direction, mode):
    """`val_auc` and `val_precision` among them."""
    assert infer_mode(monitor, direction) == mode
