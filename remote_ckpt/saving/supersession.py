"""Rules for superseding a waiting checkpoint: only scores of the same series, metric and direction are compared.

A spool may hold checkpoints of several series, sealed by processes with other metrics. So a writer reads its own metric
from the logs of each record, and compares no other score.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from remote_ckpt.policy import Mode, is_better, is_number
from remote_ckpt.records import Series
from remote_ckpt.records.series_rules import SeriesRules
from remote_ckpt.saving.spool import SpoolEntry


@dataclass(frozen=True)
class Yardstick:
    """The rules of one writer for comparing scores.

    Attributes:
        series: The filename template of its checkpoints.
        monitor: The metric.
        mode: Its direction.
    """

    series: str
    monitor: str
    mode: Mode

    def rejudged(self, entry: SpoolEntry, terms: SeriesRules) -> SpoolEntry:
        """Return an entry sealed by an earlier process, with score and terms of this writer.

        The score is the value of this writer's metric in the record's logs; None if the metric was not logged. An entry
        of another series is returned unchanged.
        """
        if entry.record.series != self.series:
            return entry
        record = entry.record
        if entry.terms.monitor != self.monitor:
            record = record.scored_by(self.monitor)
        return replace(entry, record=record, terms=terms)

    def score(self, entry: SpoolEntry) -> float | None:
        """Return a waiting checkpoint's score; None for a checkpoint of another series."""
        return entry.record.score if entry.record.series == self.series else None

    def displaces(self, newer: float | None, waiting: float | None) -> bool:
        """Return whether a save with the score `newer` supersedes a waiting save: only with a better score."""
        return is_better(newer, waiting, self.mode)

    def displaces_sealed(self, newer: SpoolEntry, waiting: SpoolEntry) -> bool:
        """Return whether a sealed checkpoint supersedes a waiting sealed checkpoint, both of this writer's series.

        A waiting checkpoint left by another process is never superseded if its score is not a number.
        """
        if (newer.record.series, waiting.record.series) != (self.series, self.series):
            return False
        comparable = is_number(waiting.record.score) or not waiting.recovered
        return comparable and self.displaces(newer.record.score, waiting.record.score)

    def best_score(self, series: Series) -> float | None:
        """Return the best score by this writer's metric among the loaded records of a series; None without a score."""
        best = series.scored_by(self.monitor, self.mode).find("best")
        return best.score if best else None


def best_of_each(entries: Iterable[SpoolEntry]) -> set[str]:
    """Return the ids of the best sealed checkpoints: at most one for each series, metric and direction."""
    best: dict[tuple[str, str, Mode], SpoolEntry] = {}
    for entry in entries:
        judge = (entry.record.series, entry.terms.monitor, entry.terms.mode)
        known = best.get(judge)
        if is_better(entry.record.score, known.record.score if known else None, entry.terms.mode):
            best[judge] = entry
    return {entry.record.id for entry in best.values()}
