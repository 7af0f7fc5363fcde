"""The curves drawn by `plot` and `report` for the URLs on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from remote_ckpt.cli._arguments import storage_options
from remote_ckpt.cli._console import tell
from remote_ckpt.errors import NoCheckpointError
from remote_ckpt.pictures.curves import Curve, curve_by, curve_of, named
from remote_ckpt.policy import Mode, infer_mode
from remote_ckpt.records import Series
from remote_ckpt.run import Run
from remote_ckpt.run.discovery import find_runs

Urls = Annotated[
    list[str],
    typer.Argument(metavar="URL...", help="Runs, folders of many runs, or filename templates of single series."),
]
StoreOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-O",
        metavar="KEY=VALUE",
        help="For the store, as for the other commands. Repeat.",
        show_default=False,
    ),
]
Metric = Annotated[
    str | None,
    typer.Option("--metric", metavar="NAME", help="Another logged metric than the runs are judged by."),
]
Direction = Annotated[
    str | None,
    typer.Option("--mode", metavar="min|max", help="Which way that metric is better; else its name decides."),
]

Found = tuple[str, str, Series]  # the run's URL, the series' template, and the series


def find_curves(
    urls: Sequence[str], option: list[str] | None, metric: str | None = None, mode: str | None = None
) -> list[Curve]:
    """Return the curves of all series at or below some URLs, each once.

    For each run that is left out, a warning with the reason is printed on stderr.

    Args:
        urls: Runs, or prefixes; a prefix that is not a run stands for all runs below.
        option: For the store, as on the command line.
        metric: A logged metric, to be drawn instead of the metric of each series.
        mode: The direction of `metric`. By default the direction of the series that have this metric; without such
            series, the metric's name decides.

    Raises:
        NoCheckpointError: There are no checkpoints, or none has logged `metric`.
        typer.BadParameter: `mode` is neither min nor max, or is given without a metric; or `mode` is missing, and the
            series with this metric have different directions.
    """
    if mode is not None and (mode not in ("min", "max") or metric is None):
        raise typer.BadParameter("--mode is min or max, and says which way --metric is better.")
    options = storage_options(option)
    found = {one[:2]: one for url in urls for one in _series_at(url, options)}
    if not found:
        raise _nothing([Run(url, storage_options=options) for url in urls])
    if metric is None:
        return named([curve_of(*one) for one in found.values()])
    return named(_by(metric, mode, list(found.values())))


def _nothing(runs: Sequence[Run]) -> NoCheckpointError:
    if len(runs) == 1:
        return runs[0].nothing()
    return NoCheckpointError(f"None of {', '.join(run.url for run in runs)} holds or leads to a run with checkpoints.")


def _series_at(url: str, options: dict[str, Any]) -> Iterator[Found]:
    """Yield the series of a run; if the run has no checkpoints, the series of all runs below."""
    run = Run(url, storage_options=options)
    own = list(_drawn(run, run.series))
    yield from own
    if own or run.location.template is not None:
        return
    for found in find_runs(url, storage_options=options):
        if found.problem is not None:
            tell(f"{found.run.url} is left out: {found.problem}", style="yellow")
        else:
            recent = found.manifest.series
            long = any(series.segments for series in recent.values())
            yield from _drawn(found.run, found.run.series if long else recent)


def _drawn(run: Run, held: Mapping[str, Series]) -> Iterator[Found]:
    return ((run.url, template, series) for template, series in held.items() if series.checkpoints)


def _by(metric: str, mode: str | None, found: list[Found]) -> list[Curve]:
    logged = {name for *_, series in found for record in series.checkpoints for name in record.logs}
    if metric not in logged:
        known = ", ".join(sorted(logged)[:20]) or "nothing"
        raise NoCheckpointError(f"No checkpoint has logged {metric!r}. What was logged: {known}.")
    direction = _direction(metric, mode, {series.mode for *_, series in found if series.monitor == metric})
    curves = [curve_by(*one, metric, direction) for one in found]
    for curve in curves:
        if not curve.points:
            tell(f"{curve.run} is left out: it has not logged {metric}.", style="yellow")
    return [curve for curve in curves if curve.points]


def _direction(metric: str, mode: str | None, judged: set[Mode]) -> Mode:
    """Return the direction of a metric: the user's, else the direction of the series with this metric, else by name."""
    if mode is not None:
        return "min" if mode == "min" else "max"
    if len(judged) > 1:
        raise typer.BadParameter(f"Some series take less of {metric} for better, and some more. Give --mode.")
    return next(iter(judged), None) or infer_mode(metric)
