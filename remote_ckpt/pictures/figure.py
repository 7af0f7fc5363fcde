"""Curves as a picture, by matplotlib: PNG or SVG. Without pyplot, whose state would be shared with the caller."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from remote_ckpt.formatting import shortened
from remote_ckpt.pictures.curves import FEW, Curve, Place, best_curves_first, best_line, best_text, score_line, title_of
from remote_ckpt.pictures.files import PictureError, write_whole
from remote_ckpt.pictures.palette import LOOKS, Look, look
from remote_ckpt.pictures.scales import needs_log
from remote_ckpt.pictures.thinning import thinned
from remote_ckpt.pictures.timeline import timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINTS = 2000  # in one line; a picture is about a thousand pixels wide
_MARKS = 300  # in one line; with more, the improvements are not marked
_INK, _FAINT = "#333333", "#e3e3e3"
_LONGEST_NAME = 30  # characters
_TITLE = {"fontsize": 13, "color": _INK}


def draw(curves: Sequence[Curve]) -> Figure:
    """Return a picture of curves of one metric: above, scores by epoch; below, the time until each upload was complete.

    Args:
        curves: At least one, all of one metric. Of more than `palette.LOOKS`, the best are drawn, and the picture gives
            the number of all.

    Raises:
        PictureError: matplotlib is not installed.
    """
    ranked = best_curves_first(curves)
    drawn = ranked[:LOOKS]
    figure = _figure(max(6.0, 0.5 + 0.36 * len(drawn)) if len(drawn) > 1 else 6.0)
    above, below = figure.subplots(2, 1, height_ratios=(5, 2))
    for place, curve in reversed(list(enumerate(drawn))):
        _draw_scores(above, curve, look(place), few=len(drawn) <= FEW)
    _describe_scores(above, drawn)
    _draw_timeline(below, drawn)
    if len(drawn) > 1:
        _name_all(figure, drawn, len(ranked) - len(drawn))
    else:
        _name_best(figure, above, drawn[0])
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a picture in the format of the suffix, `.png` or `.svg`; the file appears complete or not at all.

    Raises:
        PictureError: The file cannot be written; see `write_whole`.
    """
    kind = Path(path).suffix[1:].lower()
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a run's name may be in any script
        figure.savefig(data, format=kind, metadata={"Date": None} if kind == "svg" else None)
    write_whole(path, data.getvalue())


def _figure(height: float) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise PictureError(
            "Pictures are drawn by matplotlib, which is not installed: `pip install matplotlib`. "
            "Without -o the chart is drawn in the terminal, and `remote-ckpt report` needs nothing more."
        ) from exc
    figure = Figure(figsize=(9.0, height), dpi=150, facecolor="white")
    figure.set_layout_engine("constrained", h_pad=0.08, w_pad=0.08)
    FigureCanvasAgg(figure)
    return figure


def _draw_scores(axes: Axes, curve: Curve, style: Look, *, few: bool) -> None:
    points = thinned(curve.points, _POINTS, lambda point: point.height)
    if few and curve.improvements < len(curve.points):
        axes.plot(*_columns(score_line(points)), color=style.light, alpha=0.4, linewidth=1)
    (best,) = axes.plot(*_columns(best_line(points)), color=style.light, linewidth=1.8, zorder=3)
    best.set_linestyle((0, style.dashes) if style.dashes else "-")
    shown = [(point.epoch, point.height) for point in points if point.improved and point.height is not None]
    if few and len(shown) <= _MARKS:
        _mark(axes, shown, style, zorder=4)
    unknown = sorted({point.epoch for point in points if point.height is None})
    axes.plot(
        unknown, [0.015] * len(unknown), "x", color=style.light, markersize=5, transform=axes.get_xaxis_transform()
    )
    if curve.best is not None and curve.best.height is not None:
        where, size = [(curve.best.epoch, curve.best.height)], 11 if few else 8
        axes.plot(*zip(*where, strict=True), "o", color=style.light, ms=size, mfc="white", mew=size / 6, zorder=5)
        _mark(axes, where, style, zorder=6, size=size / 2.5)


def _mark(axes: Axes, places: Sequence[tuple[float, float]], style: Look, zorder: int, size: float = 4.4) -> None:
    xs, ys = [x for x, _ in places], [y for _, y in places]
    axes.plot(xs, ys, "o", color=style.light, markersize=size, zorder=zorder)


def _columns(places: Sequence[Place]) -> tuple[list[float], list[float]]:
    return [x for x, _ in places], [float("nan") if y is None else y for _, y in places]


def _describe_scores(axes: Axes, curves: Sequence[Curve]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.margins(y=0.12)  # room for the best one's name, where no score can be
    heights = [height for curve in curves for point in curve.points if (height := point.height) is not None]
    if needs_log(heights):
        axes.set_yscale("log")
    _dress(axes, title_of(curves), "epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if not heights:
        axes.set_yticks([])
    if any(curve.unknown for curve in curves):
        note = "×  no number, or infinite" if heights else "×  no number, or infinite: all of them"
        axes.text(1, 1.02, note, transform=axes.transAxes, ha="right", va="bottom", fontsize=9, color=_INK)


def _draw_timeline(axes: Axes, curves: Sequence[Curve]) -> None:
    shown = timeline(curves)
    for place, dots in reversed(list(enumerate(shown.dots))):
        few = thinned(dots, _POINTS, lambda dot: dot[1])
        axes.plot(*zip(*few, strict=True) if few else ([], []), "o", color=look(place).light, markersize=3, alpha=0.8)
    if needs_log([high for dots in shown.dots for _, high in dots]):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    _dress(axes, shown.title, shown.along)


def _dress(axes: Axes, title: str, along: str) -> None:
    """Set titles and colours of one chart; keep only the numbers, faint grid lines and the bottom edge."""
    axes.set_title(title, loc="left", fontsize=11, color=_INK, parse_math=False)
    axes.set_xlabel(along, fontsize=10, color=_INK)
    axes.tick_params(labelsize=9, color=_FAINT, labelcolor=_INK, length=0)
    axes.grid(axis="y", color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color("#999999")


def _name_best(figure: Figure, axes: Axes, curve: Curve) -> None:
    """Write the name of the only run above the picture, and its best beside the ring, where no better score can be."""
    best, name = curve.best, shortened(curve.name, 90)
    shown = best is not None and best.height is not None
    figure.suptitle(name if shown else f"{name}: {best_text(curve)}", x=0.01, ha="left", parse_math=False, **_TITLE)
    if best is None or best.height is None:
        return
    late = best.epoch > (min(p.epoch for p in curve.points) + max(p.epoch for p in curve.points)) / 2
    axes.annotate(
        best_text(curve),
        (best.epoch, best.height),
        xytext=(6 if late else -6, 16 if curve.mode == "max" else -17),
        textcoords="offset points",
        ha="right" if late else "left",
        va="center",
        fontsize=11,
        fontweight="bold",
        color=look(0).light,
    )


def _name_all(figure: Figure, curves: Sequence[Curve], missing: int) -> None:
    """Write the names of several runs beside the picture, the best run first."""
    from matplotlib.lines import Line2D

    texts = [f"{shortened(curve.name, _LONGEST_NAME)}\n{best_text(curve)}" for curve in curves]
    handles = [Line2D([], [], color=look(place).light, linewidth=2) for place in range(len(curves))]
    for place, handle in enumerate(handles):
        handle.set_linestyle((0, look(place).dashes) if look(place).dashes else "-")
    title = f"the best {len(curves)} of {len(curves) + missing} runs" if missing else None
    dummies = [str(place) for place in range(len(curves))]
    legend = figure.legend(handles, dummies, title=title, loc="outside right upper", frameon=False, fontsize=9)
    for text, wanted in zip(legend.get_texts(), texts, strict=True):
        text.set(parse_math=False, text=wanted, color=_INK)  # a name is never a formula, even with $ signs
