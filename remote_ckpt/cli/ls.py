"""`remote-ckpt ls`: the checkpoints of a run, or the runs below a prefix."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from rich.text import Text

from remote_ckpt.cli._arguments import Debug, Json, Options, Url, storage_options
from remote_ckpt.cli._console import cells, safe, say, say_json, stdout, table, tell
from remote_ckpt.cli._facts import age, as_json, number
from remote_ckpt.cli._runs_below import show_runs
from remote_ckpt.errors import AccessDeniedError
from remote_ckpt.records import Checkpoint, Series
from remote_ckpt.run import Run
from remote_ckpt.run.discovery import find_runs
from remote_ckpt.saving.spool import SpoolEntry
from remote_ckpt.saving.stats import human_bytes


def ls(url: Url, option: Options = None, json: Json = False, debug: Debug = False) -> None:  # noqa: ARG001 - see Debug
    """List a run's checkpoints, or the runs below a prefix with the best run first.

    Of a run: series by series, which checkpoint is the best, which the latest, and whose object is missing. Of a
    prefix that holds no run itself: one line for each run below it, by what it is judged by.
    """
    options = storage_options(option)
    run = Run(url, storage_options=options)
    found = {name: series for name, series in run.inspect().items() if series.checkpoints}
    if not found and run.location.template is None:
        below = find_runs(url, storage_options=options)
        if show_runs(run.url, below, json=json):
            return
    if not found:
        raise run.nothing()
    waiting = run.pending()
    if json:
        say_json(_as_json(run, found, waiting))
        return
    for name, series in found.items():
        _show(name, series)
    if left := _unnamed(run):
        tell(
            f"{left} more that the manifest does not name; unless they are being uploaded, `remote-ckpt rebuild` helps."
        )
    if waiting:
        size = human_bytes(sum(entry.record.size for entry in waiting))
        tell(f"{len(waiting)} more ({size}) in this machine's spool; `remote-ckpt recover` uploads what is left over.")


def _unnamed(run: Run) -> int:
    with suppress(AccessDeniedError):  # a reader without the right to list sees only the checkpoints in the manifest
        return len(run.unnamed())
    return 0


def _show(name: str, series: Series) -> None:
    none = "" if series.best else ": no best, as no checkpoint has a score"
    say(f"{name}  ({series.monitor}, {series.mode}){none}", style="bold")
    rows = table("epoch", "score", "size", "age", "", "key", right=("epoch", "score", "size", "age"))
    for record in series.checkpoints:
        facts = (record.epoch + 1, number(record.score), human_bytes(record.size), age(record.created))
        rows.add_row(*cells(*facts, _marks(series, record), record.key))
    stdout().print(rows)


def _marks(series: Series, record: Checkpoint) -> Text:
    if record.missing:
        return Text("missing", style="red")
    marks = [mark for mark in ("best", "latest") if getattr(series, mark) == record.id]
    return Text(", ".join(marks), style="green")


def _as_json(run: Run, found: dict[str, Series], waiting: list[SpoolEntry]) -> dict[str, Any]:
    return {
        "run": safe(run.url),
        "series": {
            name: {
                "monitor": series.monitor,
                "mode": series.mode,
                "best": series.best,
                "latest": series.latest,
                "checkpoints": [as_json(record) for record in series.checkpoints],
            }
            for name, series in found.items()
        },
        "pending": [as_json(entry.record) for entry in waiting],
    }
