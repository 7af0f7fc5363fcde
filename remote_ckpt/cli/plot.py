"""`remote-ckpt plot`: scores by epoch, as a picture or in the terminal."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from remote_ckpt.cli._arguments import Debug, Json
from remote_ckpt.cli._console import say_json, tell
from remote_ckpt.cli._curves import Direction, Metric, StoreOptions, Urls, find_curves
from remote_ckpt.pictures import figure, text
from remote_ckpt.pictures.curves import Curve, best_curves_first

_KINDS = (".png", ".svg")


def _checked(output: str | None) -> str | None:
    if output is not None and Path(output).suffix.lower() not in _KINDS:
        hint = " For the store, write --option KEY=VALUE." if "=" in output else ""
        raise typer.BadParameter(f"The picture's name ends in .png or .svg.{hint}")
    return output


Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="A picture, .png or .svg; needs `pip install matplotlib`. Else a chart in the terminal.",
        callback=_checked,
        show_default=False,
    ),
]


def plot(
    urls: Urls,
    output: Output = None,
    metric: Metric = None,
    mode: Direction = None,
    option: StoreOptions = None,
    json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - see Debug
) -> None:
    """Draw scores by epoch, with the improvements and the best, and how soon each checkpoint was in the bucket.

    Several runs, or all below a prefix, are laid over each other.
    """
    curves = find_curves(urls, option, metric, mode)
    _require_one_metric(curves)
    if output is not None:
        figure.save(figure.draw(curves), output)
        tell(f"wrote {output}")
    if json:
        say_json(_as_json(curves))
    elif output is None:
        _show(curves)


def _require_one_metric(curves: Sequence[Curve]) -> None:
    judges = {curve.judge: curve.name for curve in curves}
    if len(judges) > 1:
        named = "; ".join(f"{monitor} ({mode}): {name}" for (monitor, mode), name in sorted(judges.items()))
        raise typer.BadParameter(f"These are judged by different metrics ({named}). Name one with --metric.")


def _show(curves: Sequence[Curve]) -> None:
    console = Console(highlight=False)
    unicode = console.encoding.lower().startswith("utf")
    for line in text.chart(curves, width=console.width, unicode=unicode):
        console.print(line, soft_wrap=True)


def _as_json(curves: Sequence[Curve]) -> dict[str, Any]:
    ranked = best_curves_first(curves)
    return {"metric": ranked[0].monitor, "mode": ranked[0].mode, "curves": [_curve_as_json(curve) for curve in ranked]}


def _curve_as_json(curve: Curve) -> dict[str, Any]:
    kept = {
        record.id: json_module.loads(record.model_dump_json(include={"size", "uploaded"})) for record in curve.records
    }
    points = [
        {
            "id": point.id,
            "epoch": point.epoch,
            "score": _number(point.score),
            "created": point.created.isoformat(),
            "improved": point.improved,
            **kept.get(point.id, {}),
        }
        for point in curve.points
    ]
    best = curve.best.id if curve.best else None
    return {"name": curve.name, "run": curve.run, "series": curve.series, "best": best, "points": points}


def _number(score: float | None) -> float | str | None:
    """Return a score for JSON; NaN and infinities, which JSON lacks, become text as in the manifest."""
    if score is None or score - score == 0:
        return score
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(score)]
