"""What befalls a run from outside, at every step of those who write to it: what its bucket shows, and shows in the end.

A history is: writers have published; before one call of a writer, or before its answer, which is lost then, somebody
tampers with the bucket; the writers go on; what was taken comes back. An auditor looks after every change.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dangers import CHANGES, LONG, TAMPERINGS, Danger, Life, World, remove_manifest
from histories import ALL, BEST, FAULTS, FEW, ROUNDS, WAYS, DiedError, Tally, Way

from remote_ckpt.errors import ManifestError
from remote_ckpt.testing.faulty import Call, Fault, FaultPlan, LoseAnswer, nothing_wrong

pytestmark = pytest.mark.usefixtures("quiet")

LEAST = {ALL.name: 190, FEW.name: 280, BEST.name: 400}  # histories with tampering; fewer would be no check any more


def at(number: int, strike: Callable[[], None], *, answered: bool = True) -> FaultPlan:
    """Strike before the call of this number; or after it, and its answer is lost."""

    def fault(call: Call, act: Callable[[], Any]) -> Any:
        if answered:
            strike()
            return act()
        try:
            return LoseAnswer()(call, act)
        finally:
            strike()

    return lambda call: fault if call.number == number else None


def both(*plans: FaultPlan) -> FaultPlan:
    """The first that has a fault for a call."""
    return lambda call: next((fault for plan in plans if (fault := plan(call))), None)


def play(
    world: World, together: bool, danger: Danger | None = None, number: int = 0, answered: bool = True
) -> list[Call]:
    """Play one history, to its end if there is a danger; return the calls that there were to strike at."""
    subject = Life(world, "a")
    other = Life(world, "b") if together else subject
    subject.save(0.5)
    other.save(0.4)
    before = len(subject.store.calls)
    if danger is not None:
        strike = at(before + number, lambda: danger.befall(world), answered=answered)
        mend = at(before + number + (danger.lasts or 10**9), world.mended)
        subject.store.plan = both(strike, mend)
    subject.save(0.7)
    other.save(0.3)
    subject.save(0.45)
    made = subject.store.calls[before:]
    if danger is not None:
        world.finish()
    return made


def matters(call: Call) -> bool:
    """A question whose answer was lost is only asked again."""
    return call.verb in ("upload", *CHANGES)


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True], ids=["alone", "two"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_what_somebody_does_to_a_run_those_who_live_put_right(
    way: Way, together: bool, fast: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What they had confirmed is back, as far as its object is; the best is no worse; what was missing counts again."""
    tally = Tally(f"tampering, {way.name}, {'two writers' if together else 'one writer'}")
    calls = play(World(way, fast / "plain"), together)
    moments = [
        (n, answered) for n, call in enumerate(calls, 1) for answered in (True, False) if answered or matters(call)
    ]
    for danger, (number, answered) in itertools.product(TAMPERINGS, moments):
        world = World(way, fast / str(tally.count))
        play(world, together, danger, number, answered)
        tally.add(f"{danger.name} {'before' if answered else 'after'} call {number}", world.auditor)
    tally.report(capsys, least=LEAST[way.name])


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_sweep_without_a_manifest_deletes_nothing_that_a_writer_would_bring_back(way: Way, fast: Path) -> None:
    """Nobody can tell then what is an orphan."""
    world = World(way, fast)
    life = Life(world, "a")
    life.save(0.5)
    life.save(0.4)
    world.real.age(LONG)
    remove_manifest(world)
    world.auditor.tampered()
    before = {found.key for found in world.real.scan()}
    world.run().sweep()
    assert {found.key for found in world.real.scan()} == before
    assert world.finish() == []


@dataclass
class Chances:
    """One history by chance: two machines whose processes publish, die and begin again, while this and that befalls."""

    world: World
    chance: random.Random
    born: int = 0

    def play(self) -> None:
        for machine in "ab":
            self.begin(machine)
        for _ in range(10):
            self.chance.choice([self.save, self.save, self.save, self.befall, self.mend, self.tidy, self.restart])()
        for life in self.world.lives:
            life.store.plan = nothing_wrong
        self.world.finish()

    def begin(self, machine: str) -> None:
        self.born += 1
        Life(self.world, f"{machine}{self.born}", folder=machine)

    def save(self) -> None:
        """A fault now and then, and perhaps something that befalls the run meanwhile."""
        life = self.chance.choice(self.world.lives)
        number = len(life.store.calls) + self.chance.randrange(1, 12)
        strike = at(number, self.befall, answered=self.chance.random() < 0.5)
        life.store.plan = both(strike, self.fault) if self.chance.random() < 0.3 else self.fault
        try:
            life.save(self.chance.choice([self.chance.random(), self.chance.random(), math.nan, math.inf, None]))
        except DiedError:
            self.replace(life)

    def fault(self, call: Call) -> Fault | None:
        return self.chance.choice(list(FAULTS.values())) if self.chance.random() < 0.03 else None

    def befall(self) -> None:
        self.chance.choice(TAMPERINGS).befall(self.world)

    def mend(self) -> None:
        self.world.mended()

    def tidy(self) -> None:
        """Days have passed; somebody sweeps, or keeps a few."""
        self.world.real.age(LONG)
        with contextlib.suppress(ManifestError):  # half of it is there
            if self.world.way is ALL or self.chance.random() < 0.5:
                self.world.run().sweep()
            else:
                self.world.run().prune(keep_best=1, keep_last=1)

    def restart(self) -> None:
        self.replace(self.chance.choice(self.world.lives))

    def replace(self, life: Life) -> None:
        life.end()
        self.begin(life.name[0])


@pytest.mark.slow
def test_this_and_that_befalls_a_run_by_chance(fast: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Again and again, with faults and deaths between."""
    tally = Tally("tampering, faults, deaths, sweeps and retention by chance")
    for seed in range(300 * ROUNDS):
        chance = random.Random(seed)
        world = World(chance.choice(WAYS), fast / str(seed))
        Chances(world, chance).play()
        tally.add(f"seed {seed} ({world.way.name})", world.auditor)
    tally.report(capsys, least=300)
