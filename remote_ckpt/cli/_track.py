"""The progress of a series from look to look, as shown by `watch`."""

from __future__ import annotations

from dataclasses import dataclass, field

from remote_ckpt.policy import best_first, is_better
from remote_ckpt.records import Checkpoint, HistoryPoint, Series

_RECENT = 20  # commits from which the rate is computed


@dataclass(frozen=True)
class News:
    """A commit not seen by an earlier look.

    Attributes:
        entry: The history's entry of the commit.
        improved: Whether the checkpoint was the best so far.
        record: The checkpoint; None if the checkpoint has been pruned since.
    """

    entry: HistoryPoint
    improved: bool
    record: Checkpoint | None


@dataclass
class Track:
    """The counts of a series' commits and improvements.

    Pass the series with the full history to the first look; later looks need only the entries in the manifest. An entry
    that is committed and moved to a segment between two looks is not counted. This takes more than `segments.AT_HAND`
    commits between the looks.

    Attributes:
        series: The series at the last look.
        commits: The number of checkpoints ever committed.
        improvements: The number of checkpoints that were the best when committed.
    """

    series: Series
    commits: int = 0
    improvements: int = 0
    _best: float | None = None
    _seen: set[str] = field(default_factory=set)
    _recent: list[HistoryPoint] = field(default_factory=list)

    def look(self, series: Series) -> list[News]:
        """Count the commits since the last look, and return them."""
        if (series.monitor, series.mode) != (self.series.monitor, self.series.mode):
            known = best_first([one for one in series.checkpoints if one.id in self._seen], series.mode)
            self._best = known[0].score if known else None  # the best until now has a score by another metric
        self.series = series
        return [self._count(entry) for entry in series.history if entry.id not in self._seen]

    @property
    def best(self) -> Checkpoint | None:
        """The present best checkpoint, or None."""
        return self.series.find("best")

    @property
    def latest(self) -> Checkpoint | None:
        """The latest checkpoint, or None."""
        return self.series.find("latest")

    @property
    def hourly(self) -> float | None:
        """Recent checkpoints per hour; None for fewer than two checkpoints."""
        times = sorted(entry.created for entry in self._recent)
        seconds = (times[-1] - times[0]).total_seconds() if times else 0.0
        return (len(times) - 1) * 3600 / seconds if seconds else None

    def _count(self, entry: HistoryPoint) -> News:
        self._seen.add(entry.id)
        self._recent = [*self._recent, entry][-_RECENT:]
        self.commits += 1
        improved = is_better(entry.own_score, self._best, self.series.mode)
        if improved:
            self._best = entry.own_score
            self.improvements += 1
        return News(entry, improved, self.series.find(entry.id))
