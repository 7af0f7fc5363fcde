"""A crowd of writers on one run, each in a process of its own that is killed now and then and started again.

As a program (`python crowds.py URL TIMES MODE`) it is one writer: it publishes what dead processes left in the spool,
then `TIMES` checkpoints of its own, and says what it does in lines of text.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from records import seal, terms

from remote_ckpt.errors import CommitConflictError, CommitOutcomeUnknownError, StoreError
from remote_ckpt.location import Location
from remote_ckpt.manifest import Committer
from remote_ckpt.policy import Mode, is_better
from remote_ckpt.records import HistoryPoint
from remote_ckpt.saving.publisher import Publisher
from remote_ckpt.saving.spool import Spool
from remote_ckpt.stores import Transfer, TransferReport, open_store

KEEP = {"keep_best": 3, "keep_last": 3}
SCORES = (float("nan"), float("inf"), None)


def say(*words: object) -> None:
    """One write, so that what was said before a kill is in the pipe."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def write(url: str, times: str, mode: Mode, keep_best: str, keep_last: str) -> None:
    """Be one writer."""
    location = Location.parse(url)
    store = open_store(location, transfer=Transfer(deadline=30.0))
    spool = Spool(location)
    publisher = Publisher(store, location, Committer(store, location))
    rules = terms(mode=mode, keep_best=int(keep_best), keep_last=int(keep_last))
    for entry in spool.adopt():
        say("recovered", entry.record.id)
        publish(publisher, entry)
    for number in range(int(times)):
        score = random.choice((round(random.random(), 1), random.random(), *SCORES))
        facts = {"id": uuid.uuid4().hex[:16], "created": datetime.now(timezone.utc)}
        entry = seal(spool, number, score, data=os.urandom(200), rules=rules, **facts)
        say("sealed", entry.record.id, score)
        publish(publisher, entry)
    spool.close()
    say("ended")


def publish(publisher: Publisher, entry) -> None:
    """Publish until it is confirmed, as a writer's pipeline does."""
    while True:
        try:
            publisher.publish(entry, TransferReport())
        except (StoreError, CommitConflictError, CommitOutcomeUnknownError) as exc:
            say("failed", type(exc).__name__)
            time.sleep(random.uniform(0, 0.5))
        else:
            say("confirmed", entry.record.id)
            return


@dataclass
class Crowd:
    """Starts writers, kills them, starts them again, and keeps what they said.

    Attributes:
        url: The run.
        environment: How the writers reach its server.
        mode: Which direction is better.
        sealed: Ids of all that was told to be sealed.
        confirmed: Ids of all that was told to be in the bucket.
        counts: How often each thing was said or done: "killed", "failed", "recovered", …
        troubles: What a writer wrote to stderr before it ended as it should not.
    """

    url: str
    environment: dict[str, str]
    mode: Mode = "min"
    keep: tuple[int, int] = (3, 3)
    sealed: set[str] = field(default_factory=set)
    confirmed: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)

    def work(self, writers: int, saves: int, kills: int, chance: random.Random) -> None:
        """Let each of `writers` seal and publish `saves` checkpoints, and kill each `kills` times; wait for them."""
        seeds = [chance.random() for _ in range(writers)]
        members = [threading.Thread(target=self._member, args=(saves, kills, random.Random(seed))) for seed in seeds]
        for member in members:
            member.start()
        for member in members:
            member.join()

    def _member(self, left: int, kills: int, chance: random.Random) -> None:
        deaths = sorted(chance.randrange(left) for _ in range(kills))  # after so many saves are left
        while True:
            death = deaths.pop() if deaths else None
            sealed, killed = self._live(left, death, chance)
            left -= sealed
            if not killed:
                return

    def _live(self, left: int, death: int | None, chance: random.Random) -> tuple[int, bool]:
        """One process, to its end; returns how many checkpoints it sealed, and whether it was killed."""
        command = [sys.executable, __file__, self.url, str(left), self.mode, *map(str, self.keep)]
        environment = {**os.environ, **self.environment, "PYTHONWARNINGS": "ignore"}
        with tempfile.TemporaryFile("w+") as errors:
            pipes = {"stdout": subprocess.PIPE, "stderr": errors}
            with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
                sealed = self._hear(process, left, death, chance)
            if process.returncode not in (0, -signal.SIGKILL):
                errors.seek(0)
                self.troubles.append(errors.read()[-3000:])
        killed = process.returncode == -signal.SIGKILL
        self.counts["killed"] += killed
        return sealed, killed

    def _hear(self, process: subprocess.Popen[str], left: int, death: int | None, chance: random.Random) -> int:
        """Note what a process says until it says no more, and kill it on the way; return how much it sealed."""
        assert process.stdout is not None
        sealed, killer = 0, None
        for line in process.stdout:
            what, *words = line.split()
            self.counts[what] += 1
            if what == "sealed":
                sealed += 1
                self.sealed.add(words[0])
            elif what == "confirmed":
                self.confirmed.add(words[0])
            if death is not None and killer is None and left - sealed <= death:
                killer = threading.Timer(chance.uniform(0, 0.2), os.kill, (process.pid, signal.SIGKILL))
                killer.start()
        if killer is not None:
            killer.join()  # before the process is waited for, or its number might be another's by then
        return sealed


def verdict(
    history: Sequence[HistoryPoint], best: str | None, mode: Mode, sealed: set[str], confirmed: set[str]
) -> list[str]:
    """Return what is wrong with a run's end: pure, and blind to how it came about.

    Args:
        history: All commits, in their order.
        best: The id of the best as the run has it.
        mode: Which direction is better.
        sealed: Ids that were safe on a disk, and recovered if their process died.
        confirmed: Ids that were told to be in the bucket.
    """
    known = [entry.id for entry in history]
    problems = [f"{name} was confirmed and is not in the history" for name in sorted(confirmed - set(known))]
    problems += [f"{name} was sealed and is not in the history" for name in sorted(sealed - confirmed - set(known))]
    problems += [f"{name} was committed twice" for name, times in Counter(known).items() if times > 1]
    true: HistoryPoint | None = None
    for entry in history:  # the first among equals
        if is_better(entry.score, true.score if true else None, mode):
            true = entry
    if true is not None and best != true.id:
        problems.append(f"the best is {best} and should be {true.id} with {true.score}")
    return problems


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    write(*sys.argv[1:])
