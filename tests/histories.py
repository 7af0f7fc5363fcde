"""What histories are made of: ways of keeping checkpoints, faults, plans of one fault, processes that die, reports."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from records import seal, terms

from remote_ckpt.records.series_rules import SeriesRules
from remote_ckpt.retry import RetryPolicy
from remote_ckpt.saving.spool import Spool, SpoolEntry
from remote_ckpt.testing.audit import Auditor
from remote_ckpt.testing.faulty import (
    DENIED,
    EXPIRED,
    UNAVAILABLE,
    Call,
    Fault,
    FaultPlan,
    Hang,
    LoseAnswer,
    Slow,
    Stale,
    Truncate,
)

ROUNDS = int(os.environ.get("REMOTE_CKPT_LONG", "1"))
QUICK = RetryPolicy(deadline=0.03, first_wait=0.001, longest_wait=0.002)
FIXED = "best.weights.h5"
NEVER = 10**9


class DiedError(BaseException):
    """The process ends here; nothing in it may catch this."""


def die(call: Call, act: Callable[[], Any]) -> Any:
    raise DiedError


def do_and_die(call: Call, act: Callable[[], Any]) -> Any:
    act()
    raise DiedError


FAULTS: dict[str, Fault] = {
    "unavailable": UNAVAILABLE,
    "answer lost": LoseAnswer(),
    "denied": DENIED,
    "expired": EXPIRED,
    "hangs, not done": Hang(0.001),
    "hangs, done": Hang(0.001, done=True),
    "slow": Slow(0.001),
    "truncated": Truncate(),
    "stale": Stale(),
    "dies before": die,
    "dies after": do_and_die,
}
READS = ("read", "stat")
ONLY = {"truncated": ("read",), "stale": READS}


@dataclass(frozen=True)
class Way:
    """How checkpoints are kept: what differs between histories' pipelines."""

    name: str
    rules: SeriesRules
    fixed: bool = False
    scores: tuple[float, ...] = (0.5, 0.7, 0.3)

    def seal(self, spool: Spool, number: int, score: float | None, **changes: Any) -> SpoolEntry:
        facts = {"series": FIXED, "key": f".remote_ckpt/best-{number}.weights.h5"} if self.fixed else {}
        return seal(spool, number, score, rules=self.rules, **{**facts, **changes})


ALL = Way("all are kept", terms())
FEW = Way("few are kept", terms(keep_best=1, keep_last=1))
BEST = Way(
    "one file, the best", terms(alias="best", keep_best=1, keep_last=1), fixed=True, scores=(0.5, 0.3, float("nan"))
)
WAYS = (ALL, FEW, BEST)


def from_call(number: int, times: int, fault: Fault) -> FaultPlan:
    """The fault from the call of this number on, for so many calls of the same verb."""
    state: dict[str, Any] = {"verb": None, "left": times}

    def plan(call: Call) -> Fault | None:
        if call.number == number:
            state["verb"] = call.verb
        if state["verb"] != call.verb or not state["left"]:
            return None
        state["left"] -= 1
        return fault

    return plan


def end_of_process(spool: Spool) -> None:
    """Let go of the locks, as the kernel does when a process ends."""
    for owned in (*spool._adopted, *((spool._own,) if spool._own else ())):
        owned.lock.release()


@dataclass
class Tally:
    """Counts histories and looks, and keeps what the auditors saw."""

    name: str
    count: int = 0
    looks: int = 0
    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, history: str, auditor: Auditor) -> None:
        """Take note of a history that has been played."""
        self.count += 1
        self.looks += auditor.looks
        if auditor.violations:
            self.found[history] = auditor.violations

    def report(self, capsys: pytest.CaptureFixture[str], *, least: int = 1) -> None:
        """Print the figures; fail with the first violations of the first histories that had any, or with too few."""
        with capsys.disabled():
            total = sum(map(len, self.found.values()))
            print(f"\n{self.name}: {self.count} histories, {self.looks} looks at the bucket, {total} violations")
        assert not self.found, f"{len(self.found)} of {self.count}:\n" + "\n".join(
            f"{history}\n    " + "\n    ".join(seen[:3]) for history, seen in list(self.found.items())[:10]
        )
        assert self.count >= least, f"{self.count} histories: the check has shrunk"
