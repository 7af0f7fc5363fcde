"""Rankings of runs by their best scores: pure functions over the runs found below a prefix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from remote_ckpt.policy import Mode, best_first
from remote_ckpt.records import Checkpoint, Series
from remote_ckpt.run.discovery import FoundRun

Judge = tuple[str, Mode]
"""A metric and its direction."""


@dataclass(frozen=True)
class Standing:
    """The rank data of a run for a metric.

    Attributes:
        name: The run's folder below the prefix.
        url: The run's URL, without a password.
        best: The best checkpoint of all the run's series that are judged by this metric; None while none has a score.
        latest: The time at which the latest checkpoint of these series was captured.
        count: How many checkpoints these series have records of, missing ones included.
    """

    name: str
    url: str
    best: Checkpoint | None
    latest: datetime
    count: int

    @property
    def id(self) -> str:
        """The run's URL, as an identifier among standings."""
        return self.url

    @property
    def score(self) -> float | None:
        """The best checkpoint's score; None while the run has no best."""
        return self.best.score if self.best else None


def leaderboard(runs: Iterable[FoundRun]) -> dict[Judge, list[Standing]]:
    """Return the standings of runs for each metric and direction, the best run first.

    A run whose series are judged by several metrics stands under each of them. A run without checkpoints is left out.
    The metric by which most runs are judged comes first.
    """
    groups: dict[Judge, list[Standing]] = {}
    for found in runs:
        for judge, standing in _standings(found).items():
            groups.setdefault(judge, []).append(standing)
    ordered = sorted(groups, key=lambda judge: (-len(groups[judge]), judge))
    return {judge: best_first(groups[judge], judge[1]) for judge in ordered}


def _standings(found: FoundRun) -> dict[Judge, Standing]:
    judged: dict[Judge, list[Series]] = {}
    for series in found.manifest.series.values():
        if series.find("latest"):
            judged.setdefault((series.monitor, series.mode), []).append(series)
    return {judge: _standing(found, judge[1], together) for judge, together in judged.items()}


def _standing(found: FoundRun, mode: Mode, together: list[Series]) -> Standing:
    bests = [best for series in together if (best := series.find("best"))]
    latest = [last.created for series in together if (last := series.find("latest"))]
    count = sum(len(one.checkpoints) + sum(segment.records for segment in one.segments) for one in together)
    return Standing(found.name, found.run.url, next(iter(best_first(bests, mode)), None), max(latest), count)
