"""Curves, the data behind the pictures: the scores of a series in the order of capture, and the records."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from remote_ckpt.formatting import number, safe, shortened
from remote_ckpt.policy import Mode, best_first, is_better, is_number
from remote_ckpt.records import Checkpoint, HistoryPoint, Series

_LARGEST = 1e300  # the span of two numbers up to here is still a number

FEW = 4
"""The largest number of curves in one chart for which each single score is drawn."""

Place = tuple[float, float | None]
"""A place on a line: epoch and height. A height of None breaks the line."""


@dataclass(frozen=True)
class Point:
    """One score of a series.

    Attributes:
        id: The id of the checkpoint.
        epoch: Counted from 1, as Keras shows it.
        score: As recorded: None, NaN and infinities included.
        created: When the checkpoint was captured.
        improved: Whether the score was better than all scores captured before.
    """

    id: str
    epoch: int
    score: float | None
    created: datetime
    improved: bool

    @property
    def height(self) -> float | None:
        """The score if a chart can draw this number, else None."""
        return self.score if drawable(self.score) else None


@dataclass(frozen=True)
class Curve:
    """A series, ready to be drawn.

    Attributes:
        name: The name shown in the picture. Like the other texts: one line, without control characters.
        run: The run's URL, without a password.
        series: The filename template that made the checkpoints.
        monitor: The metric of the scores.
        mode: The metric's direction.
        points: The scores, in the order of capture.
        best: The best of the checkpoints that the run still has; None if none of them has a score that is a number.
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
        """The metric and the direction; only curves with equal pairs share a picture."""
        return self.monitor, self.mode

    @property
    def id(self) -> str:
        """The curve's name; the ranking functions require an id."""
        return self.name

    @property
    def score(self) -> float | None:
        """The score of the best checkpoint, or None without a best."""
        return self.best.score if self.best else None

    @property
    def improvements(self) -> int:
        """The number of improvements."""
        return sum(point.improved for point in self.points)

    @property
    def unknown(self) -> int:
        """The number of points without a drawable score."""
        return sum(point.height is None for point in self.points)

    @property
    def size(self) -> int:
        """The bytes of all checkpoints still in the run."""
        return sum(record.size for record in self.records)


def drawable(score: float | None) -> bool:
    """Return whether a score has a place on an axis."""
    return score is not None and math.isfinite(score) and abs(score) <= _LARGEST


def curve_of(run: str, template: str, series: Series) -> Curve:
    """Return the curve of a series by the metric of the series, with the scores of pruned checkpoints.

    Left out are checkpoints that were pruned before the series changed to this metric: the history has only their score
    by the metric before.
    """
    known: dict[str, Checkpoint | HistoryPoint] = {entry.id: entry for entry in series.history if entry.monitor is None}
    known.update({record.id: record for record in series.checkpoints})
    return _curve(run, template, series, known.values())


def curve_by(run: str, template: str, series: Series, monitor: str, mode: Mode) -> Curve:
    """Return the curve of a series by any logged metric, from the records with this metric in their logs."""
    judged = series.scored_by(monitor, mode)
    return _curve(run, template, judged, [record for record in judged.checkpoints if monitor in record.logs])


def named(curves: Sequence[Curve]) -> list[Curve]:
    """Return the curves with short, distinct names: the runs' URLs without the folders common to all."""
    folders = {curve.run: curve.run.rstrip("/").split("/") for curve in curves}
    common = _common(list(folders.values()))
    runs = [curve.run if len(folders) == 1 else "/".join(folders[curve.run][common:]) for curve in curves]
    counts = Counter(runs)
    return [
        replace(curve, name=f"{run} {curve.series}" if counts[run] > 1 else run)
        for run, curve in zip(runs, curves, strict=True)
    ]


def folder_of(curves: Sequence[Curve]) -> str:
    """Return the URL of the run; of several runs, the URL of their common folder, or an empty text."""
    runs = sorted({curve.run for curve in curves})
    paths = [run.rstrip("/").split("/") for run in runs]
    return runs[0] if len(runs) == 1 else "/".join(paths[0][: _common(paths)])


def _common(paths: Sequence[Sequence[str]]) -> int:
    """Return the number of leading folders common to all paths; the last part of a path is not counted."""
    columns = zip(*(path[:-1] for path in paths), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


def best_curves_first(curves: Sequence[Curve]) -> list[Curve]:
    """Return curves of one metric, the curve with the best score first; curves without a score come last."""
    return best_first(curves, curves[0].mode) if curves else []


def _curve(run: str, template: str, series: Series, scored: Iterable[Checkpoint | HistoryPoint]) -> Curve:
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
    """Return the title of a chart of curves of one metric."""
    better = "higher" if curves[0].mode == "max" else "lower"
    return f"{shortened(curves[0].monitor, 60)} by epoch ({better} is better)"


def best_text(curve: Curve) -> str:
    """Return a curve's best in a few words."""
    if curve.best is None:
        return "no score is a number"
    return f"best {number(curve.best.score)} at epoch {curve.best.epoch}"


def score_line(points: Sequence[Point]) -> list[Place]:
    """Return the line through all scores; undrawable scores and restarts of training break the line."""
    places: list[Place] = []
    for before, point in zip((None, *points), points, strict=False):
        if before is not None and point.epoch < before.epoch:
            places.append((point.epoch, None))
        places.append((point.epoch, point.height))
    return places


def best_line(points: Sequence[Point]) -> list[Place]:
    """Return the steps of the best so far, from the first drawable score; a restart of training breaks the line."""
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
    """Return the line without repeated places, and without the middle places of level stretches."""
    kept = [
        place
        for before, place, after in zip((None, *places), places, (*places[1:], None), strict=False)
        if before is None or after is None or not before[1] == place[1] == after[1]
    ]
    return [place for before, place in zip((None, *kept), kept, strict=False) if place != before]
