"""Every step of publishing, every fault, once, twice and until somebody mends it: what the bucket shows.

A history is: three checkpoints are published, one call goes wrong (or all from there on), the process goes on or dies,
and at last a new process without faults publishes what is left. An auditor looks at the bucket after every call.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from histories import (
    ALL,
    BEST,
    FAULTS,
    FEW,
    NEVER,
    ONLY,
    QUICK,
    ROUNDS,
    WAYS,
    DiedError,
    Tally,
    Way,
    end_of_process,
    from_call,
)
from records import TEMPLATE
from tcp_proxy import RESET, Chunk, Stall, Trouble, tcp_proxy

from remote_ckpt.errors import RemoteCkptError
from remote_ckpt.location import Location
from remote_ckpt.manifest import Committer
from remote_ckpt.run import Run
from remote_ckpt.saving.publisher import Publisher
from remote_ckpt.saving.spool import Spool, SpoolEntry
from remote_ckpt.stores import ObjectStore, Transfer, TransferReport, open_store
from remote_ckpt.stores.retrying import Retrying
from remote_ckpt.testing.audit import Auditor
from remote_ckpt.testing.faulty import UNAVAILABLE, Call, Fault, FaultPlan, FaultyStore, nothing_wrong
from remote_ckpt.testing.memory import MemoryStore


@dataclass
class History:
    """One run in one store, from its first checkpoint to the last process's recovery."""

    way: Way
    real: ObjectStore
    folder: Path
    url: str = "memory-store://run"
    through: ObjectStore | None = None  # another way to the real store, for the pipeline
    mend: Callable[[], None] = lambda: None
    store: FaultyStore = field(init=False)
    auditor: Auditor = field(init=False)
    stale: bool = False  # whether the fixed name could not be renewed

    def __post_init__(self) -> None:
        self.location = Location.parse(self.url)
        self.auditor = Auditor(self.real, self.location, keeps_all=self.way is ALL)
        self.store = FaultyStore(self.through or self.real, watch=self.look)

    def look(self, call: Call) -> None:
        if call.verb in ("write", "upload", "copy", "delete"):
            self.auditor.look()

    def publisher(self) -> Publisher:
        store = Retrying(self.store, QUICK)
        return Publisher(store, self.location, Committer(store, self.location, policy=QUICK))

    def play(self, plan: FaultPlan) -> list[str]:
        """Publish under faults, then without; return what the auditor saw."""
        spool = Spool(self.location, self.folder)
        entries = [self.way.seal(spool, number, score) for number, score in enumerate(self.way.scores)]
        self.store.plan = plan
        publisher = self.publisher()
        try:
            for entry in entries:
                try:
                    commit = publisher.publish(entry, TransferReport())
                except RemoteCkptError:
                    continue  # it waits in the spool
                self.stale = commit.problem is not None
                self.auditor.confirm(entry.record)
        except DiedError:
            pass
        end_of_process(spool)
        self.store.plan = nothing_wrong
        self.mend()
        return self.recover(entries)

    def recover(self, entries: list[SpoolEntry]) -> list[str]:
        spool = Spool(self.location, self.folder)
        publisher = self.publisher()
        left = spool.adopt()
        if self.stale and not left:  # its copy was refused, and that was reported: the next checkpoint renews the name
            left = [self.way.seal(spool, len(entries), self.way.scores[0])]
        for entry in left:
            publisher.publish(entry, TransferReport())
        spool.close()
        for entry in entries:
            self.auditor.confirm(entry.record)
        self.auditor.look_at_rest()
        if self.folder.exists() and any(self.folder.iterdir()):
            self.auditor.violations.append(f"left in the spool: {list(self.folder.rglob('*'))}")
        return self.auditor.violations


def storm(number: int, times: int) -> FaultPlan:
    """Nothing works from that call on, for so many calls."""
    return lambda call: UNAVAILABLE if number <= call.number < number + times else None


def steps(way: Way, folder: Path) -> list[Call]:
    """The calls of a history without faults."""
    history = History(way, MemoryStore(), folder)
    assert history.play(nothing_wrong) == []
    return [call for call in history.store.calls if call.verb != "fetch"]


def plans(calls: list[Call]) -> Iterator[tuple[str, Callable[[], FaultPlan]]]:
    """All histories of a way: a name, and what makes the plan."""
    for call, (name, fault), times in itertools.product(calls, FAULTS.items(), (1, 2, NEVER)):
        if call.verb not in ONLY.get(name, (call.verb,)) or (name.startswith("dies") and times > 1):
            continue
        often = {1: "once", 2: "twice"}.get(times, "until mended")
        yield (
            f"{call.verb} {call.key!r} ({call.number}): {name}, {often}",
            lambda c=call, f=fault, t=times: from_call(c.number, t, f),
        )
    for call, times in itertools.product(calls, (5, NEVER)):
        yield f"storm of {times} from {call.number}", lambda c=call, t=times: storm(c.number, t)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_whatever_goes_wrong_at_any_step_the_bucket_holds_what_it_must(way: Way, fast: Path, capsys: Any) -> None:
    """Nothing partial, never worse, nothing confirmed lost; and all arrives in the end."""
    tally = Tally(f"one fault, {way.name}")
    for number, (name, make) in enumerate(plans(steps(way, fast / "plain"))):
        history = History(way, MemoryStore(), fast / str(number))
        history.play(make())
        tally.add(name, history.auditor)
    tally.report(capsys, least=300)


@pytest.mark.slow
def test_whatever_goes_wrong_again_and_again(fast: Path, capsys: Any) -> None:
    """Each call may go wrong, in any way, by chance; two machines take turns on one run."""
    tally = Tally("faults by chance, two machines")
    for seed in range(150 * ROUNDS):
        chance = random.Random(seed)
        way = chance.choice(WAYS)
        real = MemoryStore()
        rate = chance.choice([0.05, 0.2, 0.5])
        auditor = Auditor(real, Location.parse("memory-store://run"), keeps_all=way is ALL)
        machines = [History(way, real, fast / f"{seed}-{name}") for name in "ab"]
        for machine in machines:
            machine.auditor = auditor
        play_by_chance(machines, chance, rate)
        tally.add(f"seed {seed} ({way.name}, {rate})", auditor)
    tally.report(capsys)


def play_by_chance(machines: list[History], chance: random.Random, rate: float) -> None:
    """Machines publish in turns under faults; one that dies is restarted, and adopts; at last all goes well."""

    def plan(call: Call) -> Fault | None:
        return chance.choice(list(FAULTS.values())) if chance.random() < rate else None

    number = itertools.count()
    spools: list[Spool | None] = [None, None]
    waiting: list[list[SpoolEntry]] = [[], []]
    publishers: list[Publisher] = [machine.publisher() for machine in machines]
    entries: list[SpoolEntry] = []
    for machine in machines:
        machine.store.plan = plan
    for _ in range(8):
        which = chance.randrange(2)
        machine = machines[which]
        spool = spools[which]
        if spool is None:
            spool = spools[which] = Spool(machine.location, machine.folder)
            waiting[which], publishers[which] = spool.adopt(), machine.publisher()
        score = chance.choice([chance.random(), chance.random(), float("nan"), float("inf")])
        made = machine.way.seal(spool, next(number), score)
        entries.append(made)
        waiting[which].append(made)
        try:
            for entry in list(waiting[which]):
                try:
                    publishers[which].publish(entry, TransferReport())
                except RemoteCkptError:
                    continue
                waiting[which].remove(entry)
                machine.auditor.confirm(entry.record)
        except DiedError:
            end_of_process(spool)
            spools[which] = None
    for spool, machine in zip(spools, machines, strict=True):
        if spool:
            end_of_process(spool)
        machine.store.plan = nothing_wrong
    for machine in machines:
        machine.recover(entries if machine is machines[-1] else [])


@pytest.mark.slow
@pytest.mark.parametrize("server", ["seaweedfs", "fake_gcs"], indirect=True)
def test_the_same_on_a_real_store(server: Any, prefix: str, fast: Path, capsys: Any) -> None:
    """A sample of the histories above, with other requests behind each step."""
    tally = Tally(f"one fault, {server.name}")
    every = [(way, name, make) for way in (FEW, BEST) for name, make in plans(steps(way, fast / f"plain {way.name}"))]
    chosen = random.Random(1).sample(every, min(len(every), 30 * ROUNDS))
    for number, (way, name, make) in enumerate(chosen):
        url = server.url(f"{prefix}/{number}")
        real = open_store(Location.parse(url), dict(server.storage_options))
        history = History(way, real, fast / str(number), url)
        history.play(make())
        tally.add(f"{way.name}: {name}", history.auditor)
        real.close()
    tally.report(capsys)


def on_the_wire(chance: random.Random) -> Callable[[Chunk], Trouble]:
    """One kind of trouble in one direction, for each chunk by chance."""
    up, kind = chance.choice([True, False]), chance.choice(["reset", "stall", "flip"])
    rate = chance.choice([0.02, 0.1])

    def trouble(chunk: Chunk) -> Trouble:
        if chunk.up is not up or chance.random() > rate:
            return None
        if kind == "flip":
            place = chance.randrange(len(chunk.data))
            flipped = bytes([chunk.data[place] ^ (1 << chance.randrange(8))])
            return chunk.data[:place] + flipped + chunk.data[place + 1 :]
        return RESET if kind == "reset" else Stall(0.2)

    return trouble


@pytest.mark.slow
@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_resets_stalls_and_flipped_bits_on_the_wire(server: Any, prefix: str, fast: Path, capsys: Any) -> None:
    """Between us and the server; the auditor has another line."""
    tally = Tally("trouble on the wire")
    for seed in range(12 * ROUNDS):
        chance = random.Random(seed)
        url = server.url(f"{prefix}/{seed}")
        real = open_store(Location.parse(url), dict(server.storage_options))
        with tcp_proxy(server.endpoint) as proxy:
            patience = {"read_timeout": 2, "connect_timeout": 2}
            options = {**server.storage_options, "endpoint_url": proxy.endpoint, "config_kwargs": patience}
            through = open_store(Location.parse(url), options, transfer=Transfer(deadline=1.0))
            proxy.trouble = on_the_wire(chance)
            history = History(FEW, real, fast / str(seed), url, through, proxy.mend)
            history.play(nothing_wrong)
            through.close()
        tally.add(f"seed {seed}", history.auditor)
        real.close()
    tally.report(capsys)


@pytest.mark.parametrize("server", ["seaweedfs", "fake_gcs"], indirect=True)
def test_a_manifest_that_was_damaged_on_the_wire_is_read_again(server: Any, prefix: str, fast: Path) -> None:
    """Many a flipped bit leaves it readable; it would be written back with the next commit."""
    url = server.url(prefix)
    real = open_store(Location.parse(url), dict(server.storage_options))
    history = History(ALL, real, fast / "spool", url)
    assert history.play(nothing_wrong) == []
    data, _ = real.read("manifest.json", limit=1 << 20)
    chance = random.Random(1)
    damaged = 0

    def flip(chunk: Chunk) -> Trouble:
        nonlocal damaged
        start = chunk.data.find(data[:16])
        if chunk.up or start < 0 or damaged % 2:
            damaged += start >= 0
            return None
        damaged += 1
        place = chance.randrange(start, len(chunk.data))
        flipped = bytes([chunk.data[place] ^ (1 << chance.randrange(8))])
        return chunk.data[:place] + flipped + chunk.data[place + 1 :]

    with tcp_proxy(server.endpoint) as proxy:
        through = open_store(history.location, {**server.storage_options, "endpoint_url": proxy.endpoint})
        proxy.trouble = flip
        for _ in range(20):
            assert through.read("manifest.json", limit=1 << 20)[0] == data
        through.close()
    assert damaged >= 40
    real.close()


def test_what_is_committed_can_be_pulled_by_a_user(fast: Path) -> None:
    """The histories' records are ordinary ones: `Run` reads them."""
    run = Run(str(fast / "run"))
    history = History(FEW, run.store, fast / "spool", str(fast / "run"))
    assert history.play(nothing_wrong) == []
    assert run.best.score == min(FEW.scores)
    assert run.best.series == TEMPLATE
    assert all(verdict.problem is None for verdict in run.verify())
