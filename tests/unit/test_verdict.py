"""What the crowd's judge says of a run's end: it must see each thing that is wrong."""

from __future__ import annotations

from crowds import verdict
from records import EPOCH

from remote_ckpt.records import HistoryPoint

NAN, INF = float("nan"), float("inf")


def history(*scores):
    return [HistoryPoint(id=f"id{n}", epoch=n, score=score, created=EPOCH) for n, score in enumerate(scores)]


def test_a_run_that_is_right_has_no_problem():
    """Ties go to the first; what has no number never wins; what was sealed and never told is welcome."""
    assert verdict(history(None, NAN, 2.0, 1.0, 1.0, INF), "id3", "min", {"id1", "id2"}, {"id4"}) == []
    assert verdict(history(None, NAN, 2.0, 1.0, INF, INF), "id4", "max", set(), set()) == []
    assert verdict([], None, "min", set(), set()) == []


def test_a_best_that_is_not_the_best_is_seen():
    """Worse, a later one of equals, one without a number, or none."""
    for best in ("id0", "id3", "id1", None):
        (problem,) = verdict(history(2.0, NAN, 1.0, 1.0), best, "min", set(), set())
        assert "should be id2" in problem


def test_what_was_lost_is_seen():
    """Confirmed or only sealed."""
    problems = verdict(history(1.0), "id0", "min", {"id0", "a", "b"}, {"b"})
    assert problems == ["b was confirmed and is not in the history", "a was sealed and is not in the history"]


def test_what_was_committed_twice_is_seen():
    """An answer that was lost must not count double."""
    assert verdict(history(1.0) * 2, "id0", "min", set(), set()) == ["id0 was committed twice"]
