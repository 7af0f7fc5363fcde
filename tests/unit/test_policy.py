"""Which score is better, and what is kept."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_ckpt.errors import DirectionError, RemoteCkptError
from remote_ckpt.policy import best_of, by_capture, infer_mode, is_better, retained, scalar

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
    """The first among equals; there is none where there is no number at all."""
    found = best_of(records(values), mode)
    if all(value is None or math.isnan(value) for value in values):
        assert found is None
        return
    best = values[int(found)]
    assert not any(is_better(value, best, mode) for value in values)
    assert int(found) == next(i for i, value in enumerate(values) if value == best)


@given(st.lists(scores, min_size=1), modes, st.integers(1, 5), st.integers(1, 5))
def test_retention_always_keeps_the_best_and_the_latest(values, mode, keep_best, keep_last):
    """And never more than both rules ask for."""
    kept = retained(records(values), mode, keep_best, keep_last)
    assert str(len(values) - 1) in kept
    assert kept >= {best_of(records(values), mode)} - {None}
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
        ("out_loss", "up", "max"),
        ("val_accuracy", "down", "min"),
    ],
)
def test_the_direction_is_inferred_where_keras_raises(monitor, direction, mode):
    """`val_auc` and `val_precision` among them; what the metric itself says goes first."""
    assert infer_mode(monitor, direction) == mode


RISING = """
    intersection_over_union area_under_curve
    mcc kappa psnr ssim ndcg top5 top_5_accuracy reward acc f1 F1Score f1_macro fbeta_score iou mean_io_u MeanIoU
    mIoU mAP_0.5 bleu rouge_l r2_score R2Score dice_coef cosine_similarity recall_at_k hit_rate_at_10 AUC pr_auc
    auc_2 class_3_iou log_likelihood BinaryAccuracy episode_return success_rate macro_recall
"""
FALLING = """
    in_loss time_loss std_error
    loss out_loss accuracy_loss top5_error accumulated_error previous_error mean_absolute_percentage_error mape
    wer kl_divergence categorical_crossentropy negative_log_likelihood neg_log_likelihood perplexity error_rate
    hinge false_positives log_cosh loss_1 recall_error
"""
DOUBTFUL = """
    std_accuracy reward_std time_to_success mean_time_to_failure steps_per_win variance_of_reward neg_loss no_accuracy
    inaccuracy in_accuracy accident_rate previous discount truncated spirou error_reduction accuracy_drop auc_std
    neg_mean_squared_error 1-accuracy one_minus_iou inverse_accuracy -loss learning_rate score nonsense
    error_accuracy loss_accuracy mapping
"""


@pytest.mark.parametrize("name", RISING.split())
def test_whole_words_say_that_more_is_better(name):
    """With `val_` in front and without."""
    assert infer_mode(name) == infer_mode(f"val_{name}") == "max"


@pytest.mark.parametrize("name", FALLING.split())
def test_whole_words_say_that_less_is_better(name):
    """What ends in loss or error is, whatever comes before."""
    assert infer_mode(name) == infer_mode(f"val_{name}") == "min"


@pytest.mark.parametrize("name", DOUBTFUL.split())
def test_a_name_in_doubt_is_refused_with_what_to_pass(name):
    """Parts of words count for nothing, nor do words of both kinds, nor what turns them round."""
    with pytest.raises(DirectionError, match=r'mode="max".*mode="min"') as caught:
        infer_mode(f"val_{name}")
    assert name in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, RemoteCkptError)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (np.array([0.5]), 0.5),
        (np.array([[0.5]], "float32"), 0.5),
        (np.float16(0.5), 0.5),
        (np.array(7), 7.0),
        (True, 1.0),
        (math.inf, math.inf),
        (10**400, None),
        (-(10**400), None),
        (np.array([1.0, 2.0]), None),
        (np.array([]), None),
        ("0.5", None),
        (1j, None),
        ([0.5], None),
        (None, None),
    ],
)
def test_a_metric_is_one_number_or_none(value, number):
    """Of any shape, if it is one; what cannot be a float is none, and raises nothing."""
    assert scalar(value) == number


@dataclass(frozen=True)
class Timed:
    id: str
    created: int


def test_the_latest_is_the_one_captured_last_and_of_equals_the_one_committed_last():
    """One rule, for `latest` and for what retention keeps."""
    records = [Timed("a", 2), Timed("b", 1), Timed("c", 2), Timed("d", 0)]
    assert [record.id for record in by_capture(records)] == ["d", "b", "a", "c"]
