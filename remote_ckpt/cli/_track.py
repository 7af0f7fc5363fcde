"""How a series has come along so far, look after look: what `watch` shows."""

from __future__ import annotations

from dataclasses import dataclass, field

from remote_ckpt.checkpoint import Checkpoint, Entry, Series
from remote_ckpt.policy import best_first, is_better

_RECENT = 20  # commits that the rate is taken from


@dataclass(frozen=True)
class News:
    """A commit that was not seen before.

    Attributes:
        entry: What the history says of it.
        improved: Whether it was the best so far.
        record: The checkpoint; None if it has been pruned since.
    """

    entry: Entry
    improved: bool
    record: Checkpoint | None


@dataclass
class Track:
    """Counts one series' commits and improvements.

    The first look should have all the past; later ones what is at hand. Entries that came and went to a segment between
    two looks are missed, which takes more than `segments.AT_HAND` commits.

    Attributes:
        series: As it was seen last.
        commits: How many checkpoints were ever committed.
        improvements: How many of them were the best when they came.
    """

    series: Series
    commits: int = 0
    improvements: int = 0
    _best: float | None = None
    _seen: set[str] = field(default_factory=set)
    _recent: list[Entry] = field(default_factory=list)

    def look(self, series: Series) -> list[News]:
        """Take note of what has come since the last look, and return it."""
        if (series.monitor, series.mode) != (self.series.monitor, self.series.mode):
            known = best_first([one for one in series.checkpoints if one.id in self._seen], series.mode)
            self._best = known[0].score if known else None  # the one until now is by another metric
        self.series = series
        return [self._count(entry) for entry in series.history if entry.id not in self._seen]

    @property
    def best(self) -> Checkpoint | None:
        """The best now."""
        return self.series.find("best")

    @property
    def latest(self) -> Checkpoint | None:
        """The one captured last."""
        return self.series.find("latest")

    @property
    def hourly(self) -> float | None:
        """How many checkpoints an hour there were lately; None for fewer than two."""
        times = sorted(entry.created for entry in self._recent)
        seconds = (times[-1] - times[0]).total_seconds() if times else 0.0
        return (len(times) - 1) * 3600 / seconds if seconds else None

    def _count(self, entry: Entry) -> News:
        self._seen.add(entry.id)
        self._recent = [*self._recent, entry][-_RECENT:]
        self.commits += 1
        improved = is_better(entry.own_score, self._best, self.series.mode)
        if improved:
            self._best = entry.own_score
            self.improvements += 1
        return News(entry, improved, self.series.find(entry.id))
