"""Curves as SVG inside a page, with the page's fonts and its light and dark colours.

Not made by matplotlib: its SVG has fixed colours and sizes, is ten times as long, and would make pages need matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence

from remote_ckpt.pictures.curves import FEW, Curve, Place, Point, best_line, score_line
from remote_ckpt.pictures.markup import Markup, element, joined
from remote_ckpt.pictures.palette import LOOKS
from remote_ckpt.pictures.scales import Scale, needs_log
from remote_ckpt.pictures.thinning import thinned
from remote_ckpt.pictures.timeline import timeline

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 880, 64, 14, 14, 44
_POINTS = 1500  # in one line
_MARKS = 300  # in one line; with more, the improvements are not marked
_DOTS = 600  # of one run


def score_chart(curves: Sequence[Curve]) -> Markup:
    """Return the chart of scores by epoch, for curves of one metric. Only the first `LOOKS` curves are drawn."""
    drawn = curves[:LOOKS]
    points = [point for curve in drawn for point in curve.points]
    heights = [height for point in points if (height := point.height) is not None]
    along = Scale.over([point.epoch for point in points], margin=0.02, whole=True)
    frame = _Frame(320, along, Scale.over(heights, margin=0.08), "epoch", labels=bool(heights))
    few = len(drawn) <= FEW
    groups = [_in_look(place, _scores(frame, curve, few=few)) for place, curve in enumerate(drawn)]
    return frame.around(f"{curves[0].monitor} by epoch", groups[::-1])


def timeline_chart(curves: Sequence[Curve]) -> tuple[str, Markup]:
    """Return title and chart of the delays until checkpoints were in the bucket, by time since each run's first."""
    shown = timeline(curves[:LOOKS])
    dots = [dot for each in shown.dots for dot in each]
    highs = [high for _, high in dots]
    up = Scale.over(highs) if needs_log(highs) else Scale(0.0, Scale.over([0.0, *highs]).high)
    frame = _Frame(190, Scale.over([0.0, *(when for when, _ in dots)], margin=0.02), up, shown.along)
    kept = [thinned(each, _DOTS, lambda dot: dot[1]) for each in shown.dots]
    groups = [_in_look(place, [_dot(*frame.place(*dot), 2.5) for dot in each]) for place, each in enumerate(kept)]
    return shown.title, frame.around(shown.title, groups[::-1])


def sample(place: int) -> Markup:
    """Return a short line with the look of curve number `place`, for the table above the charts."""
    line = element("line", x1=1, y1=6, x2=27, y2=6, class_="best")
    return element("svg", _in_look(place, [line]), viewBox="0 0 28 12", width=28, height=12, aria_hidden="true")


class _Frame:
    """The axes of a chart, and the places of numbers within the chart."""

    def __init__(self, height: int, along: Scale, up: Scale, text: str, *, labels: bool = True):
        self.height, self.along, self.up = height, along, up
        self._text, self._labels = text, labels

    def place(self, x: float, y: float) -> tuple[float, float]:
        return self.across(self.along.at(x)), self.down(self.up.at(y))

    def across(self, share: float) -> float:
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def down(self, share: float) -> float:
        return self.height - _BOTTOM - share * (self.height - _BOTTOM - _TOP)

    def around(self, title: str, groups: list[Markup]) -> Markup:
        parts = [*self._rows(), *self._columns(), *groups]
        return element(
            "svg", *parts, viewBox=f"0 0 {_WIDTH} {self.height}", role="img", aria_label=title, class_="chart"
        )

    def _rows(self) -> list[Markup]:
        rows = []
        for share, text in self.up.ticks(5) if self._labels else ():
            y = _number(self.down(share))
            rows.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
            rows.append(element("text", text, x=_LEFT - 8, y=y, dy="0.32em", text_anchor="end"))
        foot = _number(self.down(0))
        return [*rows, element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=foot, y2=foot, class_="foot")]

    def _columns(self) -> list[Markup]:
        y = self.height - _BOTTOM + 18
        ticks = [
            element("text", text, x=_number(self.across(share)), y=y, text_anchor="middle")
            for share, text in self.along.ticks(8)
        ]
        return [*ticks, element("text", self._text, x=self.across(0.5), y=y + 18, text_anchor="middle")]


def _scores(frame: _Frame, curve: Curve, *, few: bool) -> list[Markup]:
    points = thinned(curve.points, _POINTS, lambda point: point.height)
    parts = []
    if few and curve.improvements < len(curve.points):
        parts.append(element("path", d=_path(frame, score_line(points)), class_="scores"))
    parts.append(element("path", d=_path(frame, best_line(points)), class_="best"))
    marked = [point for point in points if point.improved and point.height is not None]
    if few and len(marked) <= _MARKS:
        parts += [_mark(frame, point, 3) for point in marked]
    for epoch in sorted({point.epoch for point in points if point.height is None}):
        parts.append(
            element(
                "text",
                "×",
                x=_number(frame.across(frame.along.at(epoch))),
                y=frame.down(0) - 3,
                text_anchor="middle",
                class_="unknown",
            )
        )
    if curve.best is not None and curve.best.height is not None:
        parts += [_mark(frame, curve.best, 7 if few else 5, "ring"), _mark(frame, curve.best, 3 if few else 2)]
    return parts


def _mark(frame: _Frame, point: Point, radius: float, kind: str | None = None) -> Markup:
    x, y = frame.place(point.epoch, point.height or 0.0)
    return _dot(x, y, radius, element("title", f"epoch {point.epoch}: {point.score:.6g}"), kind=kind)


def _dot(x: float, y: float, radius: float, *inside: Markup, kind: str | None = None) -> Markup:
    return element("circle", *inside, cx=_number(x), cy=_number(y), r=radius, class_=kind)


def _path(frame: _Frame, places: Sequence[Place]) -> str:
    steps, pen = [], "M"
    for x, height in places:
        if height is None:
            pen = "M"
            continue
        across, down = frame.place(x, height)
        steps.append(f"{pen}{_number(across)} {_number(down)}")
        pen = "L"
    return "".join(steps)


def _in_look(place: int, parts: Sequence[Markup]) -> Markup:
    return element("g", joined(list(parts)), class_=f"look-{place}")


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
