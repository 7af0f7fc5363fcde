"""The parts of the transfer engine, each by itself."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import fsspec.asyn
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_ckpt.errors import TransientError
from remote_ckpt.stores import BLOCK, MIB, Transfer
from remote_ckpt.stores.checksums import combine, crc32c
from remote_ckpt.stores.engine import bridge
from remote_ckpt.stores.engine.disk import Disk, write_range
from remote_ckpt.stores.engine.pace import Pace
from remote_ckpt.stores.engine.plan import MOST_PARTS, make_plan
from remote_ckpt.stores.engine.watch import watch
from remote_ckpt.stores.engine.window import Window, slide


@given(st.binary(max_size=3000), st.binary(max_size=3000))
def test_the_crc_of_two_strings_gives_the_crc_of_both(first: bytes, second: bytes) -> None:
    """However they are cut."""
    assert combine(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)


@given(
    size=st.integers(1, 5 * 10**12),
    part=st.none() | st.integers(1, 64 * MIB),
    concurrency=st.none() | st.integers(1, 64),
    aligned=st.booleans(),
)
def test_a_plan_keeps_every_limit(size: int, part: int | None, concurrency: int | None, aligned: bool) -> None:
    """The number of parts, the smallest part, and the memory."""
    transfer = Transfer(part_size=part, concurrency=concurrency)
    plan = make_plan(size, transfer, smallest=5 * MIB, aligned=aligned)
    count = -(-size // plan.part_size)
    assert 1 <= count <= MOST_PARTS
    assert plan.part_size >= 5 * MIB
    assert plan.width == 1 or plan.width * plan.part_size <= transfer.memory


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1, 300_000_000])
def test_the_ranges_of_a_plan_cover_the_file_once(size: int) -> None:
    """In order, without a gap."""
    ranges = list(make_plan(size, Transfer(), smallest=5 * MIB))
    assert [part.number for part in ranges] == list(range(1, len(ranges) + 1))
    assert sum(part.size for part in ranges) == size
    assert all(left.end == right.start for left, right in itertools.pairwise(ranges))


def test_the_window_is_full_until_the_end() -> None:
    """300 MB are not cut into two full rounds and a nearly empty one."""
    plan = make_plan(300_000_000, Transfer(), smallest=5 * MIB)
    assert len(list(plan)) % plan.width in (0, plan.width - 1)


def test_no_more_jobs_run_than_the_window_allows() -> None:
    """And it is full as long as there are jobs: there is no barrier."""
    running = most = 0

    async def job(seconds: float) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(seconds)
        running -= 1

    jobs = [partial(job, random.Random(n).uniform(0, 0.02)) for n in range(50)]
    asyncio.run(slide(jobs, Window(7)))
    assert most == 7
    assert running == 0


def test_a_failed_job_stops_the_others() -> None:
    """Nothing goes on unwatched."""
    started, ended = [], []

    async def job(number: int) -> None:
        started.append(number)
        try:
            if number == 3:
                raise TransientError("broken")
            await asyncio.sleep(10)
        finally:
            ended.append(number)

    with pytest.raises(TransientError):
        asyncio.run(slide((partial(job, n) for n in range(100)), Window(5)))
    assert len(started) <= 5
    assert sorted(started) == sorted(ended)


def test_a_window_narrows_when_told_and_widens_slowly() -> None:
    """Multiplicative decrease, additive increase."""
    window = Window(16)
    window.throttled()
    assert window.width == 8
    for _ in range(8):
        window.succeeded()
    assert window.width in (8, 9)
    for _ in range(1000):
        window.succeeded()
    assert window.width == 16
    for _ in range(10):
        window.throttled()
    assert window.width == 1


def test_an_interrupted_wait_cancels_the_work() -> None:
    """Ctrl-C in the waiting thread does not leave a transfer behind."""
    begun, ended = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    def interrupt() -> None:
        begun.wait(5)
        time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        bridge.run(fsspec.asyn.get_loop(), work())
    assert ended.is_set()


def test_the_loops_own_thread_is_refused() -> None:
    """It would wait for itself."""
    loop = fsspec.asyn.get_loop()

    async def inside() -> None:
        bridge.run(loop, asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="thread of your own"):
        bridge.run(loop, inside())


def test_a_request_that_stands_still_is_given_up() -> None:
    """And one that moves, however slowly, is not."""
    moved = 0

    async def slow() -> str:
        nonlocal moved
        for _ in range(6):
            await asyncio.sleep(0.03)
            moved += 1
        return "done"

    assert asyncio.run(watch(slow(), lambda: moved, "x", patience=0.05)) == "done"
    with pytest.raises(TransientError, match="no byte has moved"):
        asyncio.run(watch(asyncio.sleep(5), lambda: 0, "x", patience=0.02))


def test_a_pace_is_kept() -> None:
    """One megabyte at two megabytes a second takes about half a second, minus the burst."""

    async def spend() -> float:
        pace = Pace(2e6)
        start = time.monotonic()
        for _ in range(20):
            await pace.spend(50_000)
        return time.monotonic() - start

    assert 0.3 < asyncio.run(spend()) < 1.5


def test_a_cancelled_wait_for_the_disk_outlasts_the_work() -> None:
    """Whoever closes the descriptor next knows that nobody uses it."""
    disk, done = Disk(), []

    def work() -> None:
        time.sleep(0.2)
        done.append(True)

    async def cancelled() -> None:
        task = asyncio.ensure_future(disk.do(work))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done

    asyncio.run(cancelled())
    disk.close()


def test_pieces_are_written_one_behind_the_other(tmp_path: Path) -> None:
    """More of them than one system call takes."""
    pieces = [bytes([n % 251]) * (n % 7 + 1) for n in range(2000)]
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    write_range(fd, pieces, 5)
    os.close(fd)
    assert (tmp_path / "file").read_bytes() == b"\0" * 5 + b"".join(pieces)


def test_many_threads_may_use_the_bridge() -> None:
    """Each gets its own answer."""
    loop = fsspec.asyn.get_loop()

    async def echo(number: int) -> int:
        await asyncio.sleep(0.001)
        return number

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: bridge.run(loop, echo(n)), range(100))) == list(range(100))
