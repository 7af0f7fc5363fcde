"""`kill -9` at random instants of a real `fit`, hundreds of times: nothing confirmed is lost, nothing partial seen.

`scripts/test faults --long` kills ten times as often.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faulty_proxy import Seen, faulty_proxy
from kill_chain import Chain, Helper, Kind, helper

from remote_ckpt.run import Run

ROUNDS = int(os.environ.get("REMOTE_CKPT_LONG", "1"))
WORKERS = 2
LENGTH = 8
"""Lives of one chain, that is of one run and one spool."""

NAMED = "w-{epoch:02d}.weights.h5"
WAY = ("capture", "write", "fsync", "rename", "seal", "adopt", "journal", "probe", "stat", "upload")
WAY += ("publish", "commit", "read", "manifest", "drop")
FIXED = {"save_best_only": True}
FEW = {"keep_best": 2, "keep_last": 2}

ALL = Kind("every checkpoint is kept", NAMED, WAY)
BEST = Kind("one file, the best", "best.weights.h5", ("alias", "prune", *WAY), FIXED, rising=0.05)
KEPT = Kind("few are kept", NAMED, ("prune", "drop", "manifest", "journal", "upload", "commit"), FEW)
LARGE = Kind(
    "large files in parts over a slow link",
    NAMED,
    ("upload-parts", "journal", "manifest", "upload-parts", "prune", "write", "fsync"),
    FEW,
    units=480_000,
    transfer={"part_size": 5 << 20, "concurrency": 2},
    flush_every=2,
)


@dataclass
class Lab:
    """The processes that the kinds share; `orphans` counts objects that no manifest ever named."""

    trainers: list[Helper]
    reader: Helper
    reading: threading.Lock
    orphans: int = 0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two fork servers and a reader; importing TensorFlow is paid three times, not three hundred."""
    folder = tmp_path_factory.mktemp("lab")
    with contextlib.ExitStack() as stack:
        trainers = [stack.enter_context(helper("train", {}, folder / f"trainer-{n}")) for n in range(WORKERS)]
        reader = stack.enter_context(helper("restore", {}, folder / "reader"))
        yield Lab(trainers, reader, threading.Lock())


def kill_often(
    lab: Lab, kind: Kind, url: str, options: dict[str, Any], direct: dict[str, Any], tmp_path: Path, chains: int
):
    """Run the chains of a kind, one on each core; return them."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(chains * ROUNDS):
        waiting.put(number)
    done: list[Chain] = []
    problems: list[BaseException] = []

    def work(trainer: Helper) -> None:
        while not problems:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.append(run_chain(number, trainer))
            except BaseException as error:
                problems.append(error)

    def run_chain(number: int, trainer: Helper) -> Chain:
        folder = tmp_path / str(number)
        home = f"{url}/{number}"
        spool = folder / "spool"
        run = Run(home, storage_options=direct, spool_dir=spool)
        chain = Chain(kind, home, options, spool, folder / "cache", run, number, LENGTH)
        for life in range(LENGTH):
            chain.judge(chain.live(trainer))
            with lab.reading:
                chain.restore(lab.reader, random.Random(life).choice(["best", "latest"]))
        chain.finish()
        lab.orphans += len(chain.auditor.unnamed())
        run.store.close()
        return chain

    threads = [threading.Thread(target=work, args=(trainer,)) for trainer in lab.trainers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for problem in problems:
        raise problem
    return done


def report(lab: Lab, kind: Kind, chains: list[Chain], capsys: pytest.CaptureFixture[str]) -> None:
    """One line for people; nearly every stage that was aimed at must have been hit, on a slow machine too."""
    hits: Counter[str] = sum((chain.hits for chain in chains), Counter())
    kills, confirmed = sum(chain.lives for chain in chains), sum(len(chain.promised) for chain in chains)
    orphans, lab.orphans = lab.orphans, 0
    with capsys.disabled():
        by_stage = ", ".join(f"{stage} {count}" for stage, count in hits.most_common())
        print(f"\n{kind.name}: {kills} kills, {confirmed} confirmed, 0 lost, {orphans} orphans; in {by_stage}")
    missed = [stage for stage in kind.stages if not any(stage in path.split("/") for path in hits)]
    assert len(missed) <= len(kind.stages) // 4 or kills < 3 * len(kind.stages), f"never killed in {missed}"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("kind", "name", "chains"),
    [(ALL, "seaweedfs", 6), (BEST, "seaweedfs", 6), (KEPT, "seaweedfs", 5), (BEST, "local", 3), (KEPT, "fake_gcs", 3)],
    ids=["all", "best", "kept", "local", "gcs"],
)
def test_a_life_may_end_at_any_instant(lab, kind, name, chains, get_server, prefix, tmp_path, capsys):
    """On the same machine all that was sealed is uploaded; on another one all that was confirmed is there."""
    if name == "local":
        url, options = str(tmp_path / "run"), {}
    else:
        server = get_server(name)
        url, options = server.url(prefix), server.storage_options
    report(lab, kind, kill_often(lab, kind, url, options, options, tmp_path, chains), capsys)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_life_may_end_in_the_middle_of_a_large_upload(lab, get_server, prefix, tmp_path, capsys):
    """The next one goes on with the parts that are there."""
    server = get_server("seaweedfs")
    chance = random.Random(1)

    async def slow(seen: Seen) -> None:
        if "partNumber=" in seen.path:
            await asyncio.sleep(chance.uniform(0.02, 0.25))

    with faulty_proxy(server.endpoint) as proxy:
        proxy.before = slow
        options = {**server.storage_options, "endpoint_url": proxy.endpoint}
        chains = kill_often(lab, LARGE, server.url(prefix), options, server.storage_options, tmp_path, 4)
    report(lab, LARGE, chains, capsys)
