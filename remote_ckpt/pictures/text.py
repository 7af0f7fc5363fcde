"""Curves as lines of text, for a terminal.

Drawn with `rich`, which is a dependency anyway. The packages that draw in terminals distinguish lines by colour alone,
and colour is lost in a pipe, under NO_COLOR, and for colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.text import Text

from remote_ckpt.formatting import human_bytes, human_time, shortened
from remote_ckpt.pictures.curves import FEW, Curve, Point, best_curves_first, best_text, title_of
from remote_ckpt.pictures.palette import mark, terminal_colour
from remote_ckpt.pictures.scales import Scale
from remote_ckpt.pictures.timeline import waits_of

_LEVELS = 5  # numbers beside the axis, roughly
_MOST = 52  # curves drawn: as many as there are letters, small and capital
_NARROWEST = 20  # columns of the plot itself


def chart(curves: Sequence[Curve], *, width: int, height: int = 16, unicode: bool = True) -> list[Text]:
    """Return a chart of curves of one metric, line by line, with a legend of each run's mark and best.

    A mark is an improvement, a dot another score, and the dashes are the best so far.

    Args:
        curves: At least one, all of one metric.
        width: Columns of the terminal. The plot itself always has at least 20.
        height: Lines of the plot, without title, axis and legend.
        unicode: Whether the terminal can print Unicode; else only ASCII is used for the drawing.
    """
    ranked = best_curves_first(curves)[:_MOST]
    few = len(ranked) <= FEW
    marks = [mark(place, len(ranked), unicode=unicode) for place in range(len(ranked))]
    legend = [line for place, curve in enumerate(ranked) for line in _legend(curve, marks[place], place, few=few)]
    if missing := len(curves) - len(ranked):
        legend.append(Text(f"  and {missing} more that are not drawn"))
    return [Text(title_of(curves), style="bold"), *_plot(ranked, marks, width, height, unicode=unicode), *legend]


def _plot(curves: Sequence[Curve], marks: Sequence[str], width: int, height: int, *, unicode: bool) -> list[Text]:
    points = [point for curve in curves for point in curve.points]
    heights = [high for point in points if (high := point.height) is not None]
    if not heights:
        return []
    up, along = Scale.over(heights), Scale.over([point.epoch for point in points], margin=0, whole=True)
    labels = {_row(at, height): text for at, text in up.ticks(_LEVELS)}
    indent = max(len(text) for text in labels.values()) if labels else 0
    canvas = _Canvas(max(_NARROWEST, width - indent - 2), height, along, up)
    for place in reversed(range(len(curves))):
        canvas.draw(
            curves[place], marks[place], terminal_colour(place), "─" if unicode else "-", few=len(curves) <= FEW
        )
    edge = "│" if unicode else "|"
    rows = [Text(f"{labels.get(at, ''):>{indent}} {edge}") + canvas.line(at) for at in range(height)]
    foot = f"{'└' if unicode else '+'}{('─' if unicode else '-') * canvas.width}"
    return [*rows, Text(f"{'':{indent}} {foot}"), Text(f"{'':{indent}}  {_epochs(along, canvas.width)}")]


class _Canvas:
    """A grid of cells, with a character and a colour in each used cell."""

    def __init__(self, width: int, height: int, along: Scale, up: Scale):
        self.width = width
        self._height, self._along, self._up = height, along, up
        self._cells: dict[tuple[int, int], tuple[str, str]] = {}

    def draw(self, curve: Curve, shape: str, colour: str, dash: str, *, few: bool) -> None:
        """Draw the best so far, over this the scores (if there are few runs), and on top the improvements."""
        for column, row in self._levels(curve.points).items():
            self._cells[row, column] = (dash, colour)
        places = [
            (self._place(point.epoch, high), point) for point in curve.points if (high := point.height) is not None
        ]
        for place, point in places:
            if few and not point.improved:
                self._cells[place] = ("." if dash == "-" else "·", colour)
        self._cells.update({place: (shape, colour) for place, point in places if point.improved})

    def line(self, row: int) -> Text:
        """Return the text of line `row`, from the top."""
        text = Text()
        for column in range(self.width):
            text.append(*self._cells.get((row, column), (" ", "")))
        text.rstrip()
        return text

    def _place(self, epoch: int, high: float) -> tuple[int, int]:
        return _row(self._up.at(high), self._height), round(self._along.at(epoch) * (self.width - 1))

    def _levels(self, points: Sequence[Point]) -> dict[int, int]:
        """Return the row of the best so far for each column; after a restart of training, later rows win."""
        levels: dict[int, int] = {}
        row, begin = None, 0
        for point in points:
            column = round(self._along.at(point.epoch) * (self.width - 1))
            if row is not None:
                levels.update(dict.fromkeys(range(begin, column), row))
            begin = column
            if point.improved and (high := point.height) is not None:
                row = _row(self._up.at(high), self._height)
        return levels if row is None else {**levels, begin: row}


def _row(share: float, height: int) -> int:
    return height - 1 - round(share * (height - 1))


def _epochs(along: Scale, width: int) -> str:
    """Return the line of numbers below the chart: the first and the last epoch."""
    ends = [f"{end:.0f}" for end in (along.low, along.high)]
    return f"{'epoch ' + ends[0]:<{width - len(ends[1])}}{ends[1]}"


def _legend(curve: Curve, shape: str, place: int, *, few: bool) -> list[Text]:
    name = Text(f"{shape} ", style=terminal_colour(place)) + Text(shortened(curve.name, 60), style="bold")
    unknown = f", {_count(curve.unknown, 'score')} no number, or infinite" if curve.unknown else ""
    first = name + Text(f"  {best_text(curve)}, {_count(curve.improvements, 'improvement')}{unknown}", style="not bold")
    return [first, Text(f"  {_kept(curve)}")] if few else [first]


def _kept(curve: Curve) -> str:
    text = f"{_count(len(curve.records), 'checkpoint')}, {human_bytes(curve.size)}"
    if waits := [wait for _, wait in waits_of(curve)]:
        text += f"; in the bucket after {human_time(median(waits))} (median), {human_time(max(waits))} (longest)"
    return text


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
