"""Chains of lives: each trains into the same run until it is killed, the next one recovers; what must hold each time.

The judge looks at the bucket and the spool alone, with a store of its own, and hears what the children said in a pipe.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from waiting import HANG

from remote_ckpt.run import Run
from remote_ckpt.testing.audit import Auditor

LIVES = Path(__file__).with_name("kill_lives.py")
LONGEST = 8.0  # seconds of training; a mark that does not come must not hold up the others


class Helper:
    """A process that answers lines with lines."""

    def __init__(self, role: str, environment: dict[str, str], errors: Path):
        self._errors = errors.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, str(LIVES), role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **environment, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.process.stdout, selectors.EVENT_READ)
        self._rest = b""
        self._lines: list[str] = []

    def ask(self, order: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def line(self, seconds: float) -> str | None:
        """The next line; None when none comes within the time. Raises EOFError when the process has ended."""
        deadline = time.monotonic() + seconds
        while not self._lines:
            left = deadline - time.monotonic()
            if left <= 0 or not self._selector.select(left):
                return None
            assert self.process.stdout is not None
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                raise EOFError("the helper has ended")
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines += [line.decode() for line in lines]
        return self._lines.pop(0)

    def stop(self) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._errors.close()


@contextmanager
def helper(role: str, environment: dict[str, str], errors: Path) -> Iterator[Helper]:
    made = Helper(role, environment, errors)
    try:
        assert made.line(HANG) == "ready", errors.read_text()[-3000:]
        yield made
    finally:
        made.stop()


@dataclass
class Death:
    """What one life said before it was killed, and in which stages it was, innermost first, on every thread.

    Attributes:
        saved: Scores of the checkpoints handed over, in order.
        flushed: How many of them a flush has confirmed.
        published: Scores of those whose publication was told.
        stages: The open stages of each thread at the kill, as "seal/fsync".
        began: Whether training had begun.
    """

    saved: list[float] = field(default_factory=list)
    flushed: int = 0
    published: list[float] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    began: bool = False


@dataclass(frozen=True)
class Aim:
    """When to kill: at a mark, from inside; some time after a mark, from outside; or some time after a word.

    Attributes:
        edge: "+" or "-", for a kill at a mark.
        stage: Whose mark; "" for none.
        count: The how-manieth such mark.
        delay: Seconds after the mark, or the word; None for a kill at the mark itself.
        word: "begin" or "saved", when there is no mark.
    """

    edge: str = ""
    stage: str = ""
    count: int = 1
    delay: float | None = None
    word: str = "begin"

    @property
    def die(self) -> list[Any] | None:
        return [self.edge, self.stage, self.count] if self.stage and self.delay is None else None


def live(server: Helper, order: dict[str, Any], aim: Aim) -> Death:
    """Let one child train, and kill it."""
    server.ask({**order, "die": aim.die})
    open_stages: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    death, pid, aimed = Death(), 0, False
    limit = time.monotonic() + HANG
    while True:
        line = server.line(max(0.0, limit - time.monotonic()))
        if line is None:
            assert pid, "no child came"  # to kill 0 is to kill this process and all its kin
            os.kill(pid, signal.SIGKILL)
            limit = time.monotonic() + HANG
            continue
        word, *rest = line.split(" ", 2)
        if word == aim.word and not aim.stage and not aimed and aim.delay is not None:
            aimed, limit = True, time.monotonic() + aim.delay
        if word == "pid":
            pid = int(rest[0])
        elif word == "begin":
            death.began = True
            if not aimed:
                limit = time.monotonic() + LONGEST
        elif word == "saved":
            death.saved.append(float(rest[0]))
        elif word == "flushed":
            death.flushed = len(death.saved)
        elif word == "published":
            death.published.append(float(rest[0]))
        elif word == "failed":
            raise AssertionError(f"training ended by itself: {line}")
        elif word == "dead":
            assert rest[0] == "-9", f"the child ended with {rest[0]}"
            death.stages = ["/".join(stack) for stack in open_stages.values() if stack] or ["between"]
            return death
        else:
            thread, stage = rest
            stack = open_stages.setdefault(thread, [])
            if word == "+":
                stack.append(stage)
                counts[stage] += 1
            else:
                stack.pop()
            if aim.delay is not None and (word, stage, counts[stage]) == ("+", aim.stage, aim.count):
                aimed, limit = True, time.monotonic() + aim.delay


@dataclass
class Kind:
    """One way of saving: what the callback is given, and where the kills are aimed."""

    name: str
    template: str
    stages: tuple[str, ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    units: int = 4
    transfer: dict[str, Any] = field(default_factory=dict)
    rising: float = 0.0
    flush_every: int = 4


@dataclass
class Chain:
    """A run, its spool, and what was promised in it so far."""

    kind: Kind
    url: str
    options: dict[str, Any]
    spool: Path
    cache: Path
    direct: Run
    seed: int
    length: int
    lives: int = 0
    best: float = float("-inf")
    floor: float = float("-inf")
    promised: set[float] = field(default_factory=set)
    sealed: dict[str, float] = field(default_factory=dict)
    hits: Counter[str] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        few = {"keep_best", "keep_last", "save_best_only"} & set(self.kind.arguments)
        self.auditor = Auditor(self.direct.store, self.direct.location, keeps_all=not few)

    def aim(self, number: int, chance: random.Random) -> Aim:
        """A third at a mark, each stage in its turn; a third shortly after one; a third at any time."""
        stage = self.kind.stages[number // 3 % len(self.kind.stages)]
        first_turn = number // 3 < len(self.kind.stages)
        count = 1 if first_turn or stage in ("adopt", "probe") else chance.randint(1, 5)
        if number % 3 == 0:
            return Aim("+" if first_turn else chance.choice("+-"), stage, count)
        if number % 3 == 1:
            return Aim("+", stage, count, chance.choice([0.0, chance.uniform(0, 0.003), chance.uniform(0, 0.05)]))
        return Aim(delay=chance.uniform(0, 1.0), word=chance.choice(["begin", "saved", "saved"]))

    def live(self, server: Helper) -> Death:
        chance = random.Random(f"{self.seed}/{self.lives}")
        aim = self.aim(self.seed * self.length + self.lives, chance)
        self.lives += 1
        arguments = dict(self.kind.arguments)
        if self.lives > 1 and chance.random() < 0.25:
            arguments["resume"] = chance.choice(["latest", "best"])
        order = {
            "filepath": f"{self.url}/{self.kind.template}",
            "options": self.options,
            "spool": str(self.spool),
            "cache": str(self.cache),
            "arguments": arguments,
            "units": self.kind.units,
            "transfer": self.kind.transfer,
            "rising": self.kind.rising,
            "flush_every": self.kind.flush_every,
            "seed": chance.randrange(1 << 31),
        }
        death = live(server, order, aim)
        self.hits.update(death.stages)
        self.story.append(f"{aim} hit {death.stages}, {len(death.saved)} saved, {death.flushed} flushed")
        return death

    # What must hold after a kill

    def judge(self, death: Death) -> None:
        """Hold the bucket and the spool to what the dead process had been told, and note what it has sealed."""
        flushed = death.saved[: death.flushed]
        self.promised |= set(death.published)
        if self.kind.arguments.get(
            "save_best_only"
        ):  # only improvements are saved, and of those flushed the best stays
            self.floor = max([self.floor, *flushed])
        else:
            self.promised |= set(flushed)
        self.look()
        for entry in self.direct.pending():
            self.sealed[entry.record.id] = entry.record.score

    def look(self) -> None:
        """Nothing confirmed is lost, nothing partial is visible, and the best has not sunk."""
        self.auditor.look()
        assert not self.auditor.violations, self.tell("; ".join(self.auditor.violations))
        known = {score for scores in self.auditor.committed.values() for score in scores.values()}
        lost = self.promised - known
        assert not lost, self.tell(f"confirmed but not in the manifest: {lost}")
        self.best = max(known, default=self.best)
        assert self.best >= self.floor, self.tell(f"a flush confirmed {self.floor}, and the best is {self.best}")

    def restore(self, reader: Helper, which: str) -> None:
        """Another machine loads it: weights and predictions are the recorded ones."""
        reader.ask({"which": which, "url": self.url, "options": self.options, "units": self.kind.units})
        answer = json.loads(reader.line(60) or "null")
        assert answer, self.tell(f"load_{which} took more than a minute")
        assert "error" not in answer, self.tell(f"not restored: {answer}")
        if answer["recorded"] is None:
            assert not self.promised, self.tell("nothing to restore, but something was confirmed")
            return
        for name, value in answer["found"].items():
            assert value == answer["recorded"][name], self.tell(f"{name} differs after load_{which}")

    def finish(self) -> None:
        """The last recovery: whatever was sealed is in the bucket, and nothing is left over."""
        recovering = Run(self.url, storage_options=self.options, spool_dir=self.spool)
        recovering.recover()
        recovering.store.close()
        self.look()
        known = {name for scores in self.auditor.committed.values() for name in scores}
        missing = {score for name, score in self.sealed.items() if name not in known}
        if self.kind.arguments.get("save_best_only"):  # a better one may have taken a sealed one's place
            missing = {score for score in missing if score > self.best}
        assert not missing, self.tell(f"sealed but never uploaded: {missing}")
        left = self.direct.pending()
        assert not left, self.tell(f"still in the spool: {left}")
        garbage = [str(path) for path in self.spool.rglob("*")]
        assert not garbage, self.tell(f"left in the spool: {garbage}")
        self.direct.sweep(older_than=timedelta(0))
        assert not self.direct.store.sweep_uploads(timedelta(0), dry_run=True), self.tell("unfinished uploads remain")
        once = {entry.key for series in self.direct.manifest().series.values() for entry in series.history}
        stray = [key for key in self.auditor.unnamed() if key in once or key.startswith(".remote_ckpt/")]
        assert not stray, self.tell(f"left after a sweep: {stray}")

    def tell(self, what: str) -> str:
        lives = "\n  ".join(self.story)
        return f"{self.url} ({self.kind.name}, seed {self.seed}): {what}. Its lives:\n  {lives}"
