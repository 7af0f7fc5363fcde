"""Eight processes on one run, through a server that fails, each killed and started again: no commit is lost.

`REMOTE_CKPT_LONG` (a whole number) multiplies the saves and the kills.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from contextlib import contextmanager

import pytest
from crowds import Crowd, verdict
from faulty_proxy import CUT_AFTER, CUT_BEFORE, CUT_BODY, INTERNAL, SLOW_DOWN, faulty_proxy
from records import TEMPLATE

from remote_ckpt.errors import StoreError
from remote_ckpt.location import Location
from remote_ckpt.run import Run
from remote_ckpt.stores import open_store
from remote_ckpt.testing.audit import Auditor

LONG = int(os.environ.get("REMOTE_CKPT_LONG", "1"))
WRITERS = 8
FAULTS = {CUT_BEFORE: 0.02, CUT_AFTER: 0.02, SLOW_DOWN: 0.02, INTERNAL: 0.01, CUT_BODY: 0.02}
STALLS, LONGEST = 0.02, 1.0  # how many requests stall, and for how many seconds at most


class Weather:
    """Lets requests fail by chance, and counts how many did."""

    def __init__(self, seed: int):
        self.chance, self.count = random.Random(seed), 0

    def fault(self, _seen):
        (fault,) = self.chance.choices([*FAULTS, None], [*FAULTS.values(), 1 - sum(FAULTS.values())])
        self.count += fault is not None
        return fault

    async def stall(self, _seen):
        if self.chance.random() < STALLS:
            self.count += 1
            await asyncio.sleep(self.chance.uniform(0.1, LONGEST))


@contextmanager
def watching(auditors):
    """Let each auditor look again and again, straight at the server, in a thread of its own."""
    ended = threading.Event()

    def look(auditor):
        while not ended.wait(0.2):
            try:
                auditor.look()
            except StoreError as exc:
                auditor.violations.append(f"a reader saw {exc}")

    threads = [threading.Thread(target=look, args=(auditor,)) for auditor in auditors]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.mark.slow
@pytest.mark.timeout(120 + 240 * LONG)
@pytest.mark.parametrize(
    ("server", "mode", "saves"),
    [("seaweedfs", "min", 50), ("localstack", "max", 6), ("fake_gcs", "min", 6)],
    indirect=["server"],
)
def test_eight_writers_lose_nothing(server, mode, saves, prefix, capsys, own_spool):
    """Not a commit, not the best, at no instant that a reader looked; whatever was sealed is there in the end."""
    url = server.url(prefix)
    seed = random.randrange(1 << 32)
    weather, begun = Weather(seed), time.monotonic()
    location = Location.parse(url)
    auditors = [Auditor(open_store(location, server.storage_options), location) for _ in range(2)]
    with faulty_proxy(server.endpoint) as proxy, watching(auditors):
        proxy.fault, proxy.before = weather.fault, weather.stall
        routes = {name: proxy.endpoint for name, value in server.environment.items() if value == server.endpoint}
        crowd = Crowd(url, {**server.environment, **routes}, mode)
        crowd.work(WRITERS, saves * LONG, kills=LONG, chance=random.Random(seed))
    run = Run(url, storage_options=server.storage_options)
    crowd.confirmed |= {record.id for record in run.recover()}
    for auditor in auditors:
        auditor.look_at_rest()
    (series,) = run.series.values()
    looks, commits = sum(auditor.looks for auditor in auditors), len(series.history)
    with capsys.disabled():
        print(
            f"\n{server.name}: {commits} commits by {WRITERS} writers in {time.monotonic() - begun:.0f} s, "
            f"{crowd.counts['killed']} kills, {crowd.counts['recovered']} recovered, {weather.count} faults, "
            f"{crowd.counts['failed']} publishes failed, {looks} looks, {len(auditors[0].unnamed())} left over, "
            f"seed {seed}"
        )
    assert crowd.troubles == []
    assert [violation for auditor in auditors for violation in auditor.violations] == []
    assert verdict(series.history, series.best, mode, crowd.sealed, crowd.confirmed) == []
    assert len(crowd.sealed) == WRITERS * saves * LONG
    assert all(found.problem is None for found in run.verify())
    assert run.pending() == []
    assert {record.series for record in series.checkpoints} == {TEMPLATE}
    assert weather.count > 0
    assert crowd.counts["killed"] > 0
