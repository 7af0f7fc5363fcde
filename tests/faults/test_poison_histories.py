"""Checkpoints that the store never accepts, at every place among good ones: all others arrive, and these are kept."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dangers import Life, World
from histories import ALL, Tally
from records import TEMPLATE

from remote_ckpt.errors import InvalidRequestError, PreconditionFailedError, RemoteCkptError
from remote_ckpt.saving.pipeline import Pipeline
from remote_ckpt.saving.stats import Stats
from remote_ckpt.saving.supersession import Yardstick
from remote_ckpt.testing.faulty import Fault, FaultPlan, Refuse

pytestmark = pytest.mark.usefixtures("quiet")

POISONS: dict[str, Fault] = {
    "the store refuses it for good": Refuse(InvalidRequestError),
    "every name for it is taken": Refuse(PreconditionFailedError),
}
WAITING = 5
SUBSETS = [set(chosen) for size in range(1, WAITING) for chosen in itertools.combinations(range(WAITING), size)]


def poisoned(numbers: set[int], fault: Fault) -> FaultPlan:
    """Uploads of these checkpoints fail, under whatever name."""
    stems = tuple(f"w-{number:02d}" for number in numbers)
    return lambda call: fault if call.verb == "upload" and call.key.startswith(stems) else None


@dataclass
class Mixed:
    """Checkpoints that wait, and a store that never accepts some of them."""

    world: World
    numbers: set[int]
    fault: Fault
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.life = Life(self.world, "a")
        for number in range(WAITING):
            self.life.seal(1 / (number + 1))
        self.life.store.plan = poisoned(self.numbers, self.fault)

    def recover(self) -> None:
        """As the next process does on this machine."""
        self.life.end()
        with contextlib.suppress(RemoteCkptError):  # it reports what it could not bring in
            self.world.run(self.life.store, machine="a").recover()

    def flush(self) -> None:
        """As a writer does in which they wait."""
        yardstick = Yardstick(TEMPLATE, "val_loss", "min")
        pipeline = Pipeline(
            self.life.spool, self.life.publisher, yardstick, False, Stats(), lambda record, is_best: None
        )
        pipeline.adopt(self.life.waiting)
        with contextlib.suppress(RemoteCkptError):
            pipeline.flush(60.0)
        pipeline.stop()
        self.life.end()

    def judge(self) -> None:
        """Look where each checkpoint is."""
        run = self.world.run(machine="a")
        there = {record.epoch for record in run.checkpoints}
        waiting = {entry.record.epoch for entry in run.pending()}
        if there != set(range(WAITING)) - self.numbers:
            self.seen.append(f"with the poison {self.numbers}, {there} are in the bucket")
        if waiting != self.numbers:
            self.seen.append(f"with the poison {self.numbers}, {waiting} wait")


@pytest.mark.parametrize("way", [Mixed.recover, Mixed.flush], ids=["recover", "flush"])
def test_poison_holds_up_nothing_and_is_kept(
    way: Callable[[Mixed], None], fast: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At every place in the queue, and several at once; if the store takes it after all, it comes in too."""
    tally = Tally(f"poison, {way.__name__}")
    for numbers, (name, fault) in itertools.product(SUBSETS, POISONS.items()):
        mixed = Mixed(World(ALL, fast / str(tally.count)), numbers, fault)
        way(mixed)
        mixed.judge()
        mixed.numbers, mixed.life.store.plan = set(), lambda call: None
        mixed.recover()
        mixed.judge()
        mixed.world.auditor.violations += mixed.seen
        tally.add(f"{numbers}: {name}", mixed.world.auditor)
    tally.report(capsys, least=2 * len(SUBSETS))
