"""What is drawn of a series."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from drawn import INF, NAN, curve, series
from hypothesis import given
from hypothesis import strategies as st
from records import TEMPLATE

from remote_ckpt.pictures.curves import best_curves_first, best_line, best_text, curve_by, curve_of, named, score_line
from remote_ckpt.pictures.scales import Scale
from remote_ckpt.pictures.thinning import thinned
from remote_ckpt.pictures.timeline import timeline


def test_epochs_count_from_one_and_improvements_are_marked():
    """A tie is none."""
    drawn = curve(0.5, 0.4, 0.5, 0.6)
    assert [point.epoch for point in drawn.points] == [1, 2, 3, 4]
    assert [point.improved for point in drawn.points] == [True, False, False, True]
    assert best_text(drawn) == "best 0.6 at epoch 4"


def test_lower_is_better_where_the_series_says_so():
    """As for a loss."""
    assert curve(0.5, 0.6, 0.4, mode="min").best.epoch == 3


def test_what_was_pruned_is_drawn_too():
    """The history has its score; the records tell only what is still there."""
    drawn = curve(0.1, 0.2, 0.3, kept=slice(2, None))
    assert len(drawn.points) == 3
    assert len(drawn.records) == 1


def test_what_was_pruned_is_not_drawn_by_a_metric_that_it_was_not_judged_by():
    """The series was judged by another one then, and the two have no common axis."""
    changed = series(0.1, 0.2, 0.3, kept=slice(1, None)).scored_by("loss", "min")
    drawn = curve_of("run", TEMPLATE, changed)
    assert [point.epoch for point in drawn.points] == [2, 3]
    assert drawn.points[0].improved


def test_another_metric_is_taken_from_the_logs_of_what_is_there():
    """Whose best is another checkpoint."""
    drawn = curve_by("run", TEMPLATE, series(0.1, 0.3, 0.2, kept=slice(1, None)), "loss", "min")
    assert [point.score for point in drawn.points] == [-1.0, -2.0]
    assert drawn.best.epoch == 3


def test_what_is_no_number_is_no_improvement_and_has_no_height():
    """Infinity can be the best, and cannot be drawn."""
    drawn = curve(NAN, 0.5, None, INF)
    assert [point.improved for point in drawn.points] == [False, True, False, True]
    assert [point.height for point in drawn.points] == [None, 0.5, None, None]
    assert (drawn.unknown, best_text(drawn)) == (3, "best inf at epoch 4")


def test_a_line_breaks_where_a_score_cannot_be_drawn_and_where_training_began_again():
    """Nothing is drawn from the end of the first training to the beginning of the second."""
    drawn = curve(0.1, NAN, 0.3, 0.4, epochs=[0, 1, 2, 1])
    assert score_line(drawn.points) == [(1, 0.1), (2, None), (3, 0.3), (2, None), (2, 0.4)]


def test_the_best_so_far_goes_in_steps_to_the_last_epoch():
    """Level between improvements."""
    assert best_line(curve(0.1, 0.05, 0.3, 0.2).points) == [(1, 0.1), (3, 0.1), (3, 0.3), (4, 0.3)]


def test_the_best_run_comes_first_and_one_without_a_number_last():
    """By the direction of the metric."""
    one, two, three = curve(0.5, run="a"), curve(0.7, run="b"), curve(NAN, run="c")
    assert [each.run for each in best_curves_first([three, one, two])] == ["b", "a", "c"]


def test_names_leave_out_what_all_have_in_common():
    """Of two series of one run, the template tells which is which."""
    runs = [curve(0.5, run=run) for run in ("s3://b/sweep/x/lr-1", "s3://b/sweep/x/lr-2", "s3://b/sweep/y/lr-1")]
    assert [each.name for each in named(runs)] == ["x/lr-1", "x/lr-2", "y/lr-1"]
    assert [each.name for each in named(runs[:1])] == ["s3://b/sweep/x/lr-1"]
    assert len({each.name for each in named([runs[0], runs[0]])}) == 1
    assert named([runs[0], runs[0]])[0].name.endswith(TEMPLATE)
    assert [each.name for each in named([curve(0.5, run="s3://b"), curve(0.5, run="s3://b/sub")])] == ["b", "b/sub"]


def test_texts_of_a_curve_are_one_line_without_control_characters():
    """They come from a bucket."""
    drawn = curve(0.5, run="a\x1b[31m\nb", monitor="m\x00\u202e")
    assert all(text.isprintable() for text in (drawn.name, drawn.run, drawn.series, drawn.monitor))


def test_the_timeline_tells_how_soon_checkpoints_were_in_the_bucket():
    """In units that fit."""
    shown = timeline([curve(0.1, 0.2, 0.3, uploaded_after=30)])
    assert shown.title == "From capture until in the bucket (s)"
    assert shown.along == "time since the run's first checkpoint (min)"
    assert shown.dots == (((0.0, 30.0), (1.0, 30.0), (2.0, 30.0)),)


def test_a_clock_that_went_back_lets_nothing_arrive_before_it_was_made():
    """It arrived at once."""
    assert timeline([curve(0.1, uploaded_after=-5)]).dots == (((0.0, 0.0),),)


def test_the_timeline_shows_sizes_where_no_record_tells_when_it_was_uploaded():
    """As those of earlier versions do not."""
    shown = timeline([curve(0.1, 0.2, uploaded_after=None)])
    assert shown.title == "Size of each checkpoint (kB)"
    assert shown.dots == (((0.0, 1.0), (60.0, 1.0)),)


finite = st.floats(allow_nan=False, min_value=-1e300, max_value=1e300)


@given(st.lists(finite, max_size=5), st.booleans())
def test_a_scale_holds_its_values_and_has_ticks_on_it(values, whole):
    """Whatever they are: one value, equal ones, tiny and huge ones."""
    kept = [float(round(value)) for value in values] if whole else values
    scale = Scale.over(kept, whole=whole)
    assert all(-1e-9 <= scale.at(value) <= 1 + 1e-9 for value in kept)
    ticks = scale.ticks(5)
    assert 1 <= len(ticks) <= 12
    assert all(-1e-6 <= place <= 1 + 1e-6 for place, _ in ticks)
    assert [place for place, _ in ticks] == sorted(place for place, _ in ticks)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((0.6, 0.85), ["0.60", "0.65", "0.70", "0.75", "0.80", "0.85"]),
        ((0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ((-2000.0, 3000.0), ["-2000", "-1000", "0", "1000", "2000", "3000"]),
        ((0.1, 1e6), ["1", "100", "10000", "1e+06"]),
    ],
)
def test_ticks_are_round_numbers_with_as_many_digits_as_they_need(values, texts):
    """Powers of ten where values span more than a thousandfold."""
    assert [text for _, text in Scale.over(values).ticks(6)] == texts


def test_fewer_points_draw_the_same_picture():
    """Both ends, the extremes, and the way of the best."""
    rolled = random.Random(1)
    points = curve(*(math.sqrt(number) + rolled.gauss(0, 5) for number in range(3000))).points
    few = thinned(points, 400, lambda point: point.height)
    assert len(few) <= 400
    assert (few[0], few[-1]) == (points[0], points[-1])
    for pick in (min, max):
        assert pick(few, key=lambda point: point.score) == pick(points, key=lambda point: point.score)
    assert all(before.created < after.created for before, after in itertools.pairwise(few))
    assert [point for point in points if point.improved][-1] in few
