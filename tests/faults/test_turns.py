"""A writer and somebody who deletes take turns at their calls, in every order: nothing committed is deleted."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dangers import LONG, PLACE, Life, World
from histories import BEST, FEW, WAYS, Tally, Way, die
from turns import Turn

from remote_ckpt.location import MANIFEST_KEY
from remote_ckpt.manifest import Committer
from remote_ckpt.testing.faulty import Call, FaultyStore, nothing_wrong, on

pytestmark = pytest.mark.usefixtures("quiet")


@dataclass(frozen=True)
class Side:
    """One of two that race: its work, and the store it sees."""

    work: Callable[[], Any]
    store: FaultyStore


@dataclass(frozen=True)
class Race:
    """Two that race on a run.

    Attributes:
        name: Of the one that deletes, and what for.
        prepare: Makes the run, and both sides.
        ways: Where it can happen.
        strict: Whether nothing may be seen even for a moment; else only once a writer has been told that it is done.
    """

    name: str
    prepare: Callable[[World], tuple[Side, Side]]
    ways: tuple[Way, ...]
    strict: bool = True

    def play(self, world: World, first: int, then: int) -> tuple[bool, bool]:
        """Let the one make so many calls, then the other so many, then each go on to its end.

        Returns:
            Whether each had ended in those calls already.
        """
        sides = self.prepare(world)
        one, other = turns = [Turn(side.work) for side in sides]
        for side, turn in zip(sides, turns, strict=True):
            side.store.plan = turn.pause
        one.go(first)
        other.go(then)
        ended = one.ended, other.ended
        one.go()
        other.go()
        for side in sides:
            side.store.plan = nothing_wrong
        world.finish()
        return ended


def publishing(life: Life) -> Side:
    return Side(life.publish, life.store)


def sweeping(world: World, older_than: timedelta) -> Side:
    store = world.watched()
    store.watch = Sweeper(world, store.watch, of_all_ages=older_than < timedelta(0))
    return Side(lambda: world.run(store).sweep(older_than), store)


@dataclass
class Sweeper:
    """Watches a sweep: before each deletion it looks at the manifest, and deletes nothing that this names.

    Who sweeps what is not even old may meet an upload whose commit is under way: that is as if it were deleted by hand.
    """

    world: World
    watch: Callable[[Call], None]
    of_all_ages: bool
    named: set[str] | None = None

    def __call__(self, call: Call) -> None:
        if call.verb == "read" and call.key == MANIFEST_KEY:
            committer = Committer(self.world.real, PLACE)
            self.named = committer.archive.keys(committer.load())
        if call.verb == "delete":
            if self.named is None or call.key in self.named:
                self.world.auditor.violations.append(f"{call.key} was deleted, and not seen to be named by nothing")
            elif self.of_all_ages:
                self.world.auditor.tampered()
            self.named = None
        self.watch(call)


def late_commit(world: World) -> tuple[Side, Side]:
    """An object was uploaded two days ago; its process died before the commit, which is made up for now."""
    Life(world, "a").save(0.5)
    world.lives[0].save(0.4)
    dies = Life(world, "b")
    dies.seal(0.3, **name_of_the_first(world))
    dies.die_at(on("write", die, key=MANIFEST_KEY))
    world.real.age(LONG)
    return publishing(Life(world, "c", folder="b")), sweeping(world, timedelta(days=1))


def name_of_the_first(world: World) -> dict[str, Any]:
    """The manifest has named it once, and it is free again. Hidden names are never used again."""
    return {} if world.way.fixed else {"key": "w-00.weights.h5"}


def sweep_of_all_ages(world: World) -> tuple[Side, Side]:
    """Somebody sweeps what is not even old, while a writer publishes."""
    life = Life(world, "a")
    life.save(0.5)
    life.save(0.4)
    life.seal(0.3, **name_of_the_first(world))
    return publishing(life), sweeping(world, timedelta(seconds=-1))


def prune(world: World) -> tuple[Side, Side]:
    """Somebody keeps one best and the latest, while a writer publishes."""
    world.auditor.keeps_all = False
    life, store = Life(world, "a"), world.watched()
    for score in (0.5, 0.4, 0.45):
        life.save(score)
    life.seal(0.3)
    return publishing(life), Side(lambda: world.run(store).prune(keep_best=1, keep_last=1), store)


def twins(world: World, *tried: str) -> tuple[Side, Side]:
    """Two writers have sealed equal bytes for one name; one of them goes on to a better one, and prunes its own."""
    mine, theirs = Life(world, "a"), Life(world, "b")
    mine.save(0.5)
    for life in (mine, theirs):
        entry = life.seal(0.3, data=b"equal" * 100, key="w-07.weights.h5")
        if life.name in tried:
            entry.journal.save({"key": entry.record.key})
    theirs.seal(0.2)
    return publishing(mine), publishing(theirs)


def name_used_again(world: World) -> tuple[Side, Side]:
    """A writer takes the name of what another's retention is deleting."""
    life, other = Life(world, "a"), Life(world, "b")
    life.save(0.5)
    other.seal(0.4)
    life.seal(0.3, **name_of_the_first(world))
    return publishing(life), publishing(other)


RACES = (
    Race("a sweep, and a commit that waited for days", late_commit, (FEW, BEST), strict=False),
    Race("a sweep of all ages", sweep_of_all_ages, (FEW, BEST), strict=False),
    Race("another process prunes", prune, WAYS),
    Race("equal bytes, one prunes", twins, (FEW,)),
    Race("equal bytes, the one that prunes has tried before", lambda world: twins(world, "b"), (FEW,)),
    Race("equal bytes, both have tried before", lambda world: twins(world, "a", "b"), (FEW,)),
    Race("a name used again", name_used_again, (FEW, BEST)),
)


def schedules(play: Callable[[int, int], tuple[bool, bool]]) -> None:
    """Play every pair of numbers of calls, each until its side has ended by then."""
    for first in itertools.count():
        for then in itertools.count():
            ended = play(first, then)
            if ended[1]:
                break
        if ended[0]:
            return


@pytest.mark.slow
@pytest.mark.parametrize("race", RACES, ids=lambda race: race.name)
def test_nothing_that_was_committed_is_deleted_however_two_take_turns(
    race: Race, fast: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every order of their calls with at most three changes from one to the other."""
    tally = Tally(f"deletion, {race.name}")

    for way in race.ways:

        def play(first: int, then: int, way: Way = way) -> tuple[bool, bool]:
            world = World(way, fast / str(tally.count), looks=race.strict)
            ended = race.play(world, first, then)
            tally.add(f"{way.name}: {first} calls of the one, {then} of the other", world.auditor)
            return ended

        schedules(play)
    tally.report(capsys, least=60)
