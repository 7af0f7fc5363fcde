"""By which rule a checkpoint that waits may be let go of: scores are compared only where they are about the same.

A spool may hold checkpoints of several series, sealed by processes that watched other metrics. A score is known by its
series, its metric and its direction, so a writer asks each record for its own metric, and counts no other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from remote_ckpt.checkpoint import Series
from remote_ckpt.policy import Mode, is_better, is_number
from remote_ckpt.spool import Entry, Terms


@dataclass(frozen=True)
class Yardstick:
    """How one writer compares scores.

    Attributes:
        series: The filename template of its checkpoints.
        monitor: The metric.
        mode: Its direction.
    """

    series: str
    monitor: str
    mode: Mode

    def rejudged(self, entry: Entry, terms: Terms) -> Entry:
        """Return what an earlier process sealed, scored and kept as this writer's own; of other series, as it is.

        The score is the record's own log of this writer's metric, and None where it was not logged.
        """
        if entry.record.series != self.series:
            return entry
        record = entry.record
        if entry.terms.monitor != self.monitor:
            record = record.scored_by(self.monitor)
        return replace(entry, record=record, terms=terms)

    def score(self, entry: Entry) -> float | None:
        """Return a waiting checkpoint's score, where it is one of this writer's."""
        return entry.record.score if entry.record.series == self.series else None

    def displaces(self, newer: float | None, waiting: float | None) -> bool:
        """Return whether a save of the score `newer` takes the place of one that waits: only if it is better."""
        return is_better(newer, waiting, self.mode)

    def displaces_sealed(self, newer: Entry, waiting: Entry) -> bool:
        """Return the same of sealed checkpoints; what another process left is not let go of without a number."""
        if (newer.record.series, waiting.record.series) != (self.series, self.series):
            return False
        comparable = is_number(waiting.record.score) or not waiting.recovered
        return comparable and self.displaces(newer.record.score, waiting.record.score)

    def best_score(self, series: Series) -> float | None:
        """Return the best score that a series holds, by this metric, as far as its records are loaded."""
        best = series.scored_by(self.monitor, self.mode).find("best")
        return best.score if best else None


def best_of_each(entries: Iterable[Entry]) -> set[str]:
    """Return the ids of the best among sealed checkpoints: one for each series and each metric that it is judged by."""
    best: dict[tuple[str, str, Mode], Entry] = {}
    for entry in entries:
        judge = (entry.record.series, entry.terms.monitor, entry.terms.mode)
        known = best.get(judge)
        if is_better(entry.record.score, known.record.score if known else None, entry.terms.mode):
            best[judge] = entry
    return {entry.record.id for entry in best.values()}
