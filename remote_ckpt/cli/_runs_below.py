"""The leaderboard shown by `ls` for a prefix with many runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import typer

from remote_ckpt.cli._console import cells, say, say_json, stdout, table, tell
from remote_ckpt.cli._facts import age, as_json, number
from remote_ckpt.cli._group import FAILED
from remote_ckpt.run.discovery import FoundRun
from remote_ckpt.run.leaderboard import Judge, Standing, leaderboard
from remote_ckpt.saving.stats import human_bytes

_NUMBERS = ("score", "epoch", "age", "size", "checkpoints", "last save")


def show_runs(url: str, runs: Iterable[FoundRun], *, json: bool) -> bool:
    """Print a leaderboard for each metric, the best run first, and the runs with an unreadable manifest.

    Keeps only the facts for the leaderboard in memory, not the manifests.

    Returns:
        Whether there are runs; if not, nothing was printed.

    Raises:
        typer.Exit: With code 1; there are runs, but none has a readable manifest with checkpoints.
    """
    broken: list[FoundRun] = []
    groups = leaderboard(_intact(runs, broken))
    if not groups and not broken:
        return False
    if json:
        say_json(_as_json(url, groups, broken))
    else:
        _show_groups(groups)
    for found in broken:
        tell(f"{found.name or url}: {found.problem}", style="yellow")
    if not groups:
        raise typer.Exit(FAILED)
    return True


def _intact(runs: Iterable[FoundRun], broken: list[FoundRun]) -> Iterator[FoundRun]:
    for found in runs:
        if found.problem is None:
            yield found
        else:
            broken.append(found)


def _show_groups(groups: dict[Judge, list[Standing]]) -> None:
    for place, (judge, standings) in enumerate(groups.items()):
        if place:
            say("")
        _show(judge, standings)


def _show(judge: Judge, standings: list[Standing]) -> None:
    monitor, mode = judge
    say(f"{monitor}, {mode}: {len(standings)} run{'' if len(standings) == 1 else 's'}", style="bold")
    rows = table(*_NUMBERS, "run", right=_NUMBERS)
    for standing in standings:
        best = standing.best
        facts = ("no score", "-", "-", "-")
        if best is not None:
            facts = (number(best.score), str(best.epoch + 1), age(best.created), human_bytes(best.size))
        rows.add_row(*cells(*facts, standing.count, age(standing.latest), standing.name or standing.url))
    stdout().print(rows)


def _as_json(url: str, groups: dict[Judge, list[Standing]], broken: list[FoundRun]) -> dict[str, Any]:
    return {
        "prefix": url,
        "leaderboards": [
            {"monitor": monitor, "mode": mode, "runs": [_line(standing) for standing in standings]}
            for (monitor, mode), standings in groups.items()
        ],
        "problems": [{"name": found.name, "url": found.run.url, "problem": found.problem} for found in broken],
    }


def _line(standing: Standing) -> dict[str, Any]:
    return {
        "name": standing.name,
        "url": standing.url,
        "checkpoints": standing.count,
        "latest": standing.latest.isoformat(),
        "best": as_json(standing.best) if standing.best else None,
    }
