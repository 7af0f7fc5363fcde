"""`remote-ckpt push`: make an existing file a checkpoint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from remote_ckpt.cli._arguments import Debug, Json, Options, Url, storage_options
from remote_ckpt.cli._console import say, say_json
from remote_ckpt.cli._facts import as_json, number
from remote_ckpt.cli._progress import transfer
from remote_ckpt.run import Run


def _parsed(texts: list[str] | None) -> dict[str, float]:
    metrics = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        try:
            metrics[name] = float(value)
        except ValueError:
            equals = ""
        if not (name and equals):
            raise typer.BadParameter("Write --log NAME=NUMBER: --log loss=0.25")
    return metrics


def _checked(texts: list[str] | None) -> list[str] | None:
    _parsed(texts)
    return texts


def _mode(text: str) -> str:
    if text not in ("auto", "min", "max"):
        raise typer.BadParameter("It is min, max or auto.")
    return text


File = Annotated[Path, typer.Argument(metavar="FILE", help="A .weights.h5, .keras or .h5 file.", show_default=False)]
Score = Annotated[float, typer.Option("--score", help="What it reached; nan if that is not known.")]
Epoch = Annotated[
    int | None,
    typer.Option(
        "--epoch",
        min=1,
        help="Of which epoch it is, from 1, as Keras shows it; else the one after the latest when it was written.",
    ),
]
Monitor = Annotated[
    str | None, typer.Option("--monitor", help="The metric of the score; else the run's own, or val_loss.")
]
Mode = Annotated[str, typer.Option("--mode", metavar="min|max|auto", help="Which scores are better.", callback=_mode)]
Logs = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        metavar="NAME=NUMBER",
        help="Another metric, for the record and the filename. Repeat for more.",
        callback=_checked,
        show_default=False,
    ),
]


def push(
    file: File,
    url: Url,
    score: Score,
    epoch: Epoch = None,
    monitor: Monitor = None,
    mode: Mode = "auto",
    log: Logs = None,
    option: Options = None,
    json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - see Debug
) -> None:
    """Make a file that exists already a checkpoint of a run; the best, if its score is.

    It is checked first, nothing is overwritten, and a better best stays the best. Pushing the same again changes
    nothing, and goes on where an upload broke off.
    """
    run = Run(url, storage_options=storage_options(option))
    size = file.stat().st_size if file.is_file() else 0
    with transfer("uploading", size) as progress:
        record = run.push(
            file,
            score=score,
            epoch=None if epoch is None else epoch - 1,
            monitor=monitor,
            mode=mode,
            logs=_parsed(log),
            progress=progress,
        )
    series = run.manifest().series[record.series]
    is_best = series.best == record.id
    if json:
        say_json({**as_json(record), "monitor": series.monitor, "best": is_best})
        return
    shown = "nan" if math.isnan(score) else number(score)
    say(f"epoch {record.epoch + 1}  {series.monitor} {shown}  {'best  ' if is_best else ''}{record.url}")
