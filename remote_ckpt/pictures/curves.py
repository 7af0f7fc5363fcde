"""What is drawn of a series: its scores in the order of their capture, and how soon each was in the bucket."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from remote_ckpt.checkpoint import Checkpoint, Entry, Series
from remote_ckpt.human import number, safe, shortened
from remote_ckpt.policy import Mode, best_first, is_better, is_number

_LARGEST = 1e300  # the span of two numbers up to here is still a number

FEW = 4
"""So many curves can show each of their scores without hiding each other."""

Place = tuple[float, float | None]
"""Where a line goes; one whose height is None breaks it."""


@dataclass(frozen=True)
class Point:
    """One score of a series.

    Attributes:
        id: The checkpoint's.
        epoch: Counted from 1, as Keras shows it.
        score: As recorded: None, NaN and infinities included.
        created: When it was captured.
        improved: Whether it was better than all that were captured before it.
    """

    id: str
    epoch: int
    score: float | None
    created: datetime
    improved: bool

    @property
    def height(self) -> float | None:
        """The score, where it can be drawn; else None."""
        return self.score if drawable(self.score) else None


@dataclass(frozen=True)
class Curve:
    """One series, ready to be drawn.

    Attributes:
        name: What people call it: one line without control characters, as are the other texts.
        run: The run's URL, without a password.
        series: The filename template that made the checkpoints.
        monitor: The metric of the scores.
        mode: Its direction.
        points: In the order of their capture.
        best: The best of the checkpoints that the run still has; None where none has a number.
        records: The checkpoints that the run still has, in the order of their capture.
    """

    name: str
    run: str
    series: str
    monitor: str
    mode: Mode
    points: tuple[Point, ...]
    best: Point | None
    records: tuple[Checkpoint, ...]

    @property
    def judge(self) -> tuple[str, Mode]:
        """The metric and its direction: only what is judged alike can be drawn into one picture."""
        return self.monitor, self.mode

    @property
    def id(self) -> str:
        """What tells it from others."""
        return self.name

    @property
    def score(self) -> float | None:
        """The best checkpoint's; None where none has a number."""
        return self.best.score if self.best else None

    @property
    def improvements(self) -> int:
        """How many there were."""
        return sum(point.improved for point in self.points)

    @property
    def unknown(self) -> int:
        """How many points have no score that can be drawn."""
        return sum(point.height is None for point in self.points)

    @property
    def size(self) -> int:
        """Bytes of all checkpoints that the run still has."""
        return sum(record.size for record in self.records)


def drawable(score: float | None) -> bool:
    """Return whether a score has a place on an axis."""
    return score is not None and math.isfinite(score) and abs(score) <= _LARGEST


def curve_of(run: str, template: str, series: Series) -> Curve:
    """Return a series' curve by its own metric, what was pruned included.

    Left out is what was pruned before the series was judged by this metric: its score is of another one.
    """
    known: dict[str, Checkpoint | Entry] = {entry.id: entry for entry in series.history if entry.monitor is None}
    known.update({record.id: record for record in series.checkpoints})
    return _curve(run, template, series, known.values())


def curve_by(run: str, template: str, series: Series, monitor: str, mode: Mode) -> Curve:
    """Return a series' curve by any logged metric, as far as the records at hand have it."""
    judged = series.scored_by(monitor, mode)
    return _curve(run, template, judged, [record for record in judged.checkpoints if monitor in record.logs])


def named(curves: Sequence[Curve]) -> list[Curve]:
    """Return curves with names as short as can be told apart: the runs' folders without what all have in common."""
    folders = {curve.run: curve.run.rstrip("/").split("/") for curve in curves}
    common = _common(list(folders.values()))
    runs = [curve.run if len(folders) == 1 else "/".join(folders[curve.run][common:]) for curve in curves]
    counts = Counter(runs)
    return [
        replace(curve, name=f"{run} {curve.series}" if counts[run] > 1 else run)
        for run, curve in zip(runs, curves, strict=True)
    ]


def folder_of(curves: Sequence[Curve]) -> str:
    """Return the URL of the run; of several runs, that of the folder that all are in; empty if there is none."""
    runs = sorted({curve.run for curve in curves})
    paths = [run.rstrip("/").split("/") for run in runs]
    return runs[0] if len(runs) == 1 else "/".join(paths[0][: _common(paths)])


def _common(paths: Sequence[Sequence[str]]) -> int:
    """Return how many folders all paths begin with, each path's last one aside."""
    columns = zip(*(path[:-1] for path in paths), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


def best_curves_first(curves: Sequence[Curve]) -> list[Curve]:
    """Return curves of one metric, that of the best score first; those without a number come last."""
    return best_first(curves, curves[0].mode) if curves else []


def _curve(run: str, template: str, series: Series, scored: Iterable[Checkpoint | Entry]) -> Curve:
    points: list[Point] = []
    best: float | None = None
    for one in sorted(scored, key=lambda one: one.created):
        improved = is_better(one.score, best, series.mode)
        best = one.score if improved else best
        points.append(Point(one.id, one.epoch + 1, one.score, one.created, improved))
    chosen = next((p for p in points if p.id == series.best and is_number(p.score)), None)
    records = tuple(sorted(series.checkpoints, key=lambda record: record.created))
    url = _in_one_line(run)
    return Curve(
        url, url, _in_one_line(template), _in_one_line(series.monitor), series.mode, tuple(points), chosen, records
    )


def _in_one_line(text: str) -> str:
    return safe(text).replace("\n", " ")


def title_of(curves: Sequence[Curve]) -> str:
    """Return what a chart of curves of one metric shows."""
    better = "higher" if curves[0].mode == "max" else "lower"
    return f"{shortened(curves[0].monitor, 60)} by epoch ({better} is better)"


def best_text(curve: Curve) -> str:
    """Return a curve's best in a few words."""
    if curve.best is None:
        return "no score is a number"
    return f"best {number(curve.best.score)} at epoch {curve.best.epoch}"


def score_line(points: Sequence[Point]) -> list[Place]:
    """Return the line through all scores. It breaks where one cannot be drawn, and where training began again."""
    places: list[Place] = []
    for before, point in zip((None, *points), points, strict=False):
        if before is not None and point.epoch < before.epoch:
            places.append((point.epoch, None))
        places.append((point.epoch, point.height))
    return places


def best_line(points: Sequence[Point]) -> list[Place]:
    """Return the steps of the best so far, from the first score that can be drawn to the last epoch of each start."""
    places: list[Place] = []
    best: float | None = None
    last = 0
    for point in points:
        if point.epoch < last:
            places.append((point.epoch, None))
        if best is not None:
            places.append((point.epoch, best))
        if point.improved:
            best = point.height if point.height is not None else best
            places.append((point.epoch, best))
        last = point.epoch
    return _corners(places)


def _corners(places: list[Place]) -> list[Place]:
    """Return the line without the places in the middle of its level stretches."""
    kept = [
        place
        for before, place, after in zip((None, *places), places, (*places[1:], None), strict=False)
        if before is None or after is None or not before[1] == place[1] == after[1]
    ]
    return [place for before, place in zip((None, *kept), kept, strict=False) if place != before]
