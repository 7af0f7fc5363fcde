"""One run with several processes on it, and what may befall it from outside, each in one stroke."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from histories import ALL, FIXED, DiedError, Way, end_of_process

from remote_ckpt.errors import ObjectNotFoundError, RemoteCkptError
from remote_ckpt.location import MANIFEST_KEY, Location
from remote_ckpt.manifest import Committer
from remote_ckpt.retry import RetryPolicy
from remote_ckpt.run import Run
from remote_ckpt.saving.publisher import Publisher
from remote_ckpt.saving.spool import Spool, SpoolEntry
from remote_ckpt.stores import Expect, TransferReport
from remote_ckpt.stores.retrying import Retrying
from remote_ckpt.testing.audit import Auditor
from remote_ckpt.testing.faulty import Call, FaultPlan, FaultyStore
from remote_ckpt.testing.memory import MemoryStore

PLACE = Location.parse("memory://run")
RESTLESS = RetryPolicy(deadline=1.0, first_wait=0.001, longest_wait=0.002, sleep=lambda _: None)
CHANGES = ("write", "copy", "delete")  # an upload only makes what nobody names yet
LONG = timedelta(days=2)


@dataclass
class World:
    """A run in memory, its auditor, the processes on it, and what was taken from it.

    Attributes:
        way: How its checkpoints are kept.
        folder: For the spools.
        looks: Whether the auditor looks after each change, not only where a process has finished something.
        past: Each manifest that was ever written.
        away: What was taken, by key.
        lives: The processes that live.
    """

    way: Way
    folder: Path
    looks: bool = True
    real: MemoryStore = field(default_factory=MemoryStore)
    past: list[bytes] = field(default_factory=list)
    away: dict[str, bytes] = field(default_factory=dict)
    lives: list[Life] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.auditor = Auditor(self.real, PLACE, keeps_all=self.way is ALL)
        self.numbers = itertools.count()
        self.mend: Callable[[], None] | None = None

    def watched(self) -> FaultyStore:
        """The store as a process sees it."""
        return FaultyStore(self.real, watch=self._look)

    def run(self, store: FaultyStore | None = None, machine: str = "none") -> Run:
        """A process without a writer: from the command line, say, and on some machine."""
        made = Run(PLACE, spool_dir=self.folder / machine)
        made._store = Retrying(store or self.watched(), RESTLESS)
        return made

    def mended(self) -> None:
        """Let what was done from outside be undone, if it is not yet."""
        mend, self.mend = self.mend, None
        if mend is not None:
            mend()
            self.auditor.tampered()

    def finish(self) -> list[str]:
        """Let all that live publish what waits and two checkpoints more; return what the auditor saw."""
        self.mended()
        for life in self.lives:
            life.publish()
            life.save(0.8)
            life.save(0.6)
        self.auditor.look_at_rest()
        for life in self.lives:
            left = [f"{entry.record.id} of {life.name} waits for ever: {life.trouble!r}" for entry in life.waiting]
            self.auditor.violations.extend(left)
            life.end()
        return self.auditor.violations

    def _look(self, call: Call) -> None:
        if call.verb == "write" and call.key == MANIFEST_KEY:
            self.past.append(self.real.read(MANIFEST_KEY, limit=1 << 20)[0])
        if self.looks and call.verb in CHANGES:
            self.auditor.look()


class Life:
    """A process that seals and publishes. It keeps what could not be published, and tries again, as a pipeline does."""

    def __init__(self, world: World, name: str, folder: str | None = None):
        """Begin to live, with what dead processes left in the same folder."""
        self.world, self.name = world, name
        self.spool = Spool(PLACE, world.folder / (folder or name))
        self.store = world.watched()
        self.trouble: RemoteCkptError | None = None
        store = Retrying(self.store, RESTLESS)
        self.publisher = Publisher(store, PLACE, Committer(store, PLACE, policy=RESTLESS))
        self.waiting = self.spool.adopt()
        world.lives.append(self)

    def seal(self, score: float | None, **changes: Any) -> SpoolEntry:
        """Seal a checkpoint, to be published."""
        entry = self.world.way.seal(self.spool, next(self.world.numbers), score, **changes)
        self.waiting.append(entry)
        return entry

    def save(self, score: float | None, **changes: Any) -> None:
        """Seal a checkpoint and publish all that waits."""
        self.seal(score, **changes)
        self.publish()

    def publish(self) -> None:
        """Publish what waits, and take note of what the bucket is said to hold."""
        for entry in list(self.waiting):
            try:
                commit = self.publisher.publish(entry, TransferReport())
            except RemoteCkptError as exc:
                self.trouble = exc
                continue
            self.waiting.remove(entry)
            if self.store.inner is self.world.real:  # another server's word is worth nothing at home
                self.world.auditor.confirm(commit.series.find(entry.record.id) or entry.record, self.name)
            self.world.auditor.look()

    def die_at(self, plan: FaultPlan) -> None:
        """Publish what waits until `plan` lets the process die."""
        self.store.plan = plan
        try:
            self.publish()
        except DiedError:
            self.end()

    def end(self) -> None:
        """Die, or end."""
        end_of_process(self.spool)
        self.world.auditor.died(self.name)
        self.world.lives = [life for life in self.world.lives if life is not self]


@dataclass(frozen=True)
class Danger:
    """What may befall a run.

    Attributes:
        name: In words.
        strike: Does it at once; it may set `World.mend`, for what does not last.
        lasts: After how many calls more it is mended; None: until the end.
        tampers: Whether it is none of ours that does it.
    """

    name: str
    strike: Callable[[World], None]
    lasts: int | None = None
    tampers: bool = True

    def befall(self, world: World) -> None:
        """Strike, and let the auditor look at what there is now."""
        world.mended()
        self.strike(world)
        if self.tampers:
            world.auditor.tampered()
        if world.looks:
            world.auditor.look()


def remove_manifest(world: World) -> None:
    """Somebody deletes `manifest.json`."""
    world.real.delete(MANIFEST_KEY)


def hide_manifest(world: World) -> None:
    """It is gone for a while; then somebody puts it back, over whatever a writer has begun meanwhile."""
    if (whole := _manifest(world)) is not None:
        world.mend = partial(_put, world, MANIFEST_KEY, whole)
        remove_manifest(world)


def roll_back(world: World, by: int) -> None:
    """An older version is put back, of so many commits ago; the first, if there were fewer."""
    if world.past:
        _put(world, MANIFEST_KEY, world.past[max(len(world.past) - 1 - by, 0)])


def tear_manifest(world: World) -> None:
    """Half of it is there until the copy is complete."""
    if (whole := _manifest(world)) is not None:
        world.mend = partial(_put, world, MANIFEST_KEY, whole)
        _put(world, MANIFEST_KEY, whole[: len(whole) // 2])


def take_objects(world: World, wanted: Callable[[World, str], bool]) -> None:
    """Objects are not there (yet), as in a copy that began with the manifest; later they come."""
    taken = {found.key for found in world.real.scan() if found.key.endswith(".h5") and wanted(world, found.key)}
    world.away = {key: world.real.read(key, limit=1 << 20)[0] for key in taken}
    for key in taken:
        world.real.delete(key)
    world.mend = partial(_bring_back, world)


def copy_half(world: World) -> None:
    """An older manifest is put back, and no object yet."""
    roll_back(world, 1)
    take_objects(world, but_the_fixed_name)


def be_elsewhere(world: World) -> None:
    """Another server answers to the same URL for a while, and has nothing."""
    elsewhere = MemoryStore()
    elsewhere._count = 10**9  # two servers' versions are never equal by chance
    for life in world.lives:
        life.store.inner = elsewhere
    world.mend = partial(_be_home, world)


def every_object(world: World, key: str) -> bool:
    """Fixed names too."""
    return True


def but_the_fixed_name(world: World, key: str) -> bool:
    """To delete that is how a user says that all of it is gone."""
    return key != FIXED


def the_best(world: World, key: str) -> bool:
    """Of each series."""
    manifest = Committer(world.real, PLACE).load()
    return key in {best.key for one in manifest.series.values() if (best := one.find("best"))}


TAMPERINGS = (
    Danger("the manifest is removed", remove_manifest),
    Danger("the manifest is away for three calls", hide_manifest, lasts=3),
    Danger("the manifest is rolled back by one", partial(roll_back, by=1)),
    Danger("the manifest is rolled back to the first", partial(roll_back, by=99)),
    Danger("half of the manifest is there for three calls", tear_manifest, lasts=3),
    Danger("half of the manifest is there for long", tear_manifest),
    Danger("the objects come three calls later", partial(take_objects, wanted=but_the_fixed_name), lasts=3),
    Danger("the objects come long after", partial(take_objects, wanted=but_the_fixed_name)),
    Danger("the objects and the fixed name come long after", partial(take_objects, wanted=every_object)),
    Danger("the best is away for long", partial(take_objects, wanted=the_best)),
    Danger("an older manifest comes long before its objects", copy_half),
    Danger("another server answers for long", be_elsewhere),
)


def _manifest(world: World) -> bytes | None:
    try:
        return world.real.read(MANIFEST_KEY, limit=1 << 20)[0]
    except ObjectNotFoundError:
        return None


def _put(world: World, key: str, data: bytes) -> None:
    world.real.write(key, data, expect=Expect.ANYTHING)


def _bring_back(world: World) -> None:
    """Not over what has the name by now."""
    for key, data in world.away.items():
        try:
            world.real.stat(key)
        except ObjectNotFoundError:
            _put(world, key, data)
    world.away = {}


def _be_home(world: World) -> None:
    for life in world.lives:
        life.store.inner = world.real
