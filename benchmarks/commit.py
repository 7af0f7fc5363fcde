"""How long a commit takes, with 1, 8 and 64 writers on one run, and on a run that already holds 10,000 checkpoints.

    python benchmarks/commit.py [--server NAME] [--commits N] [--pause SECONDS] [--only writers|long]

Latency is from the call of `Committer.commit` to its return: reading, the lost rounds and their waits, the one that was
won. Objects are not uploaded; all records name one. A process's first commit reads the manifest; the next one knows it,
if no other writer came in between. 8 writers are 8 processes; 64 are 8 processes of 8 threads, each
with a store, a session and a view of its own. Without a pause every writer commits again at once, which is the worst
that can happen; with `--pause` each waits about that long in between, as training does.

The table goes to stdout, all of it to benchmarks/results/commit.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import threading
import time
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from transfer import shaped

from remote_ckpt.location import MANIFEST_KEY, Location
from remote_ckpt.manifest import Committer
from remote_ckpt.manifest.segment_store import SegmentStore
from remote_ckpt.manifest.segments import segments_of
from remote_ckpt.records import Checkpoint, Manifest, Series
from remote_ckpt.records.series_rules import SeriesRules
from remote_ckpt.stores import Expect, open_store
from remote_ckpt.testing.servers import Server, start

HERE = Path(__file__).parent
TEMPLATE = "w-{epoch:02d}.weights.h5"
TERMS = SeriesRules(monitor="val_loss", mode="min")
METRICS = ("loss", "accuracy", "auc", "val_loss", "val_accuracy", "val_auc", "learning_rate")
LONG = 10_000
CROWDS = {1: (1, 1), 8: (8, 1), 64: (8, 8)}  # processes, threads in each


def record(epoch: int, when: datetime | None = None) -> Checkpoint:
    """Return a record as a real run makes it: seven logs, a writer, random digests and score."""
    logs = {name: random.random() for name in METRICS}
    return Checkpoint(
        id=uuid.uuid4().hex[:16],
        series=TEMPLATE,
        key="w.weights.h5",
        size=100 << 20,
        sha256=uuid.uuid4().hex * 2,
        crc32c="AAAAAA==",
        epoch=epoch,
        step=epoch * 1000,
        score=logs["val_loss"],
        logs=dict(logs),
        created=when or datetime.now(timezone.utc),
        writer=f"{platform.node()}-{os.getpid()}",
    )


def committer(url: str, options: dict[str, Any]) -> Committer:
    """Open a store of its own."""
    location = Location.parse(url)
    return Committer(open_store(location, options), location)


def prepare(url: str, options: dict[str, Any], length: int = 0) -> None:
    """Make the object that all records name, and a run of `length` checkpoints."""
    one = committer(url, options)
    one.store.write("w.weights.h5", b"weights", expect=Expect.ANYTHING)
    if not length:
        return
    begun = datetime.now(timezone.utc) - timedelta(days=1)
    series = Series(monitor=TERMS.monitor, mode=TERMS.mode)
    records = tuple(record(number, begun + timedelta(seconds=number)) for number in range(length))
    step = 500  # as if it had grown: the records in commit order, moved to segments on the way
    manifest, archive = Manifest(), SegmentStore(one.store, one.location)
    for first in range(0, length, step):
        for candidate in records[first : first + step]:
            series = series.with_checkpoint(candidate)
        manifest, objects = archive.frozen(manifest.with_series(TEMPLATE, series), segments_of(manifest))
        archive.write(objects)
        series = manifest.series[TEMPLATE]
    one.store.write(MANIFEST_KEY, manifest.dump(), expect=Expect.ABSENT)


def write(url: str, options: dict[str, Any], threads: int, commits: int, pause: float) -> list[list[float]]:
    """Commit from several threads; return each one's latencies."""
    taken: list[list[float]] = [[] for _ in range(threads)]
    go, ready = threading.Event(), threading.Barrier(threads + 1)

    def work(mine: list[float]) -> None:
        one = committer(url, options)
        one.load()  # the connection is there before the clock runs
        ready.wait()
        go.wait()
        for number in range(commits):
            time.sleep(random.uniform(0, 2 * pause))
            candidate = record(number)
            begun = time.perf_counter()
            one.commit(candidate, TERMS)
            mine.append(time.perf_counter() - begun)

    workers = [threading.Thread(target=work, args=(mine,)) for mine in taken]
    for worker in workers:
        worker.start()
    ready.wait()
    print("ready", flush=True)
    sys.stdin.readline()  # all begin together
    go.set()
    for worker in workers:
        worker.join()
    return taken


def crowd(server: Server, writers: int, commits: int, pause: float) -> dict[str, float]:
    """Let writers commit to one run, check that none of it is lost, and return their latencies."""
    processes, threads = CROWDS[writers]
    url = server.url(f"bench/{uuid.uuid4().hex}")
    prepare(url, server.storage_options)
    command = [sys.executable, __file__, "--work", json.dumps([url, server.storage_options, threads, commits, pause])]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    crew = [subprocess.Popen(command, text=True, env=environment, **pipes) for _ in range(processes)]
    for process in crew:
        assert process.stdout is not None
        process.stdout.readline()  # it is ready
    begun = time.perf_counter()
    for process in crew:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    each = [taken for process in crew for taken in json.loads(process.communicate(timeout=1800)[0])]
    seconds = time.perf_counter() - begun
    expected = writers * commits
    one = committer(url, server.storage_options)
    whole = one.archive.whole(TEMPLATE, one.load().series[TEMPLATE])
    assert len(whole.history) == len({entry.id for entry in whole.history}) == expected, "commits were lost"
    every = [seconds for taken in each for seconds in taken]
    return {"writers": writers, "pause": pause, **spread(every), "commits": expected, "per_second": expected / seconds}


def long_run(server: Server, options: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Commit in turns to runs of three lengths, by a process that has not read the manifest yet and by one that has."""
    places = {"10,000 checkpoints": server.url(f"bench/{uuid.uuid4().hex}")}
    prepare(places["10,000 checkpoints"], server.storage_options, LONG)
    taken: dict[str, dict[str, list[float]]] = {}
    for number in range(rounds):
        for name, length in (("none", 0), ("3 checkpoints", 3)):
            places[name] = server.url(f"bench/{uuid.uuid4().hex}")
            prepare(places[name], server.storage_options, length)
        for name, place in places.items():
            one = committer(place, options)
            one.store.stat("w.weights.h5")  # the connection is there before the clock runs
            for kind in ("first", "next"):
                candidate = record(LONG + number)
                begun = time.perf_counter()
                one.commit(candidate, TERMS)
                taken.setdefault(name, {}).setdefault(kind, []).append(time.perf_counter() - begun)
    found = {name: {kind: spread(seconds) for kind, seconds in kinds.items()} for name, kinds in taken.items()}
    long = found["10,000 checkpoints"]
    return {
        name: {**kinds, "long ÷ this": {kind: long[kind]["median"] / kinds[kind]["median"] for kind in kinds}}
        for name, kinds in found.items()
    }


def show_long_run(link: str, found: dict[str, Any]) -> None:
    print(f"\n| {link}; the run holds | commit | median, ms | p95 | longest | 10,000 ÷ this |\n{'| --- ' * 6}|")
    for name, kinds in found.items():
        for kind, ratio in kinds["long ÷ this"].items():
            print(f"| {name} | {kind} | {milliseconds(kinds[kind])} | {ratio:.2f} |", flush=True)


def spread(seconds: list[float]) -> dict[str, float]:
    """Return median, 95th percentile and the longest."""
    ordered = sorted(seconds)
    return {
        "median": statistics.median(ordered),
        "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        "longest": ordered[-1],
    }


def milliseconds(found: dict[str, float]) -> str:
    return " | ".join(f"{found[name] * 1e3:.0f}" for name in ("median", "p95", "longest"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=["seaweedfs", "localstack", "ministack"], default="seaweedfs")
    parser.add_argument("--commits", type=int, default=20, help="by each writer")
    parser.add_argument("--pause", type=float, nargs="+", default=[0.0, 5.0], help="seconds between a writer's commits")
    parser.add_argument("--writers", type=int, nargs="+", choices=sorted(CROWDS), default=sorted(CROWDS))
    parser.add_argument("--rounds", type=int, default=40, help="of commits to an empty and to a long run")
    parser.add_argument("--only", choices=["writers", "long"])
    parser.add_argument("--output", type=Path, default=HERE / "results" / "commit.json")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        print(json.dumps(write(*json.loads(chosen.work))), flush=True)
        return
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {chosen.server}"
    report: dict[str, Any] = {"machine": machine, "load_before": os.getloadavg()[0]}
    print(machine)
    with start(chosen.server) as server:
        if chosen.only != "writers":
            report["long"] = {}
            for link, rate in (("loopback", None), ("20 ms a round trip", 8e6)):
                with shaped(server, rate, 0.02) as endpoint:
                    options = {**server.storage_options, "endpoint_url": endpoint}
                    report["long"][link] = long_run(server, options, chosen.rounds)
                show_long_run(link, report["long"][link])
        if chosen.only != "long":
            report["crowds"] = []
            print(f"\n| writers | pause, s | median, ms | p95 | longest | commits/s |\n{'| --- ' * 6}|")
            for pause in chosen.pause:
                for writers in chosen.writers:
                    one = crowd(server, writers, chosen.commits if not pause else max(3, chosen.commits // 4), pause)
                    report["crowds"].append(one)
                    print(f"| {writers} | {pause:g} | {milliseconds(one)} | {one['per_second']:.0f} |", flush=True)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
