"""The parts of the transfer engine, each by itself."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import fsspec.asyn
import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import HANG, until

from remote_ckpt.errors import TransientError
from remote_ckpt.stores import BLOCK, MIB, Transfer, Version
from remote_ckpt.stores.checksums import combine, crc32c
from remote_ckpt.stores.s3.delta import SMALLEST, Source, plan_delta
from remote_ckpt.stores.transfer import event_loop
from remote_ckpt.stores.transfer.concurrency import ConcurrencyWindow, slide
from remote_ckpt.stores.transfer.file_io import FileIO, write_range
from remote_ckpt.stores.transfer.part_plan import MOST_PARTS, PartPlan, plan_download, plan_upload, with_lengths
from remote_ckpt.stores.transfer.rate_limit import RateLimit
from remote_ckpt.stores.transfer.stall_timeout import stop_if_stalled


@given(st.binary(max_size=3000), st.binary(max_size=3000))
def test_the_crc_of_two_strings_gives_the_crc_of_both(first: bytes, second: bytes) -> None:
    """However they are cut."""
    assert combine(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)


@given(
    size=st.integers(1, 5 * 10**12),
    part=st.none() | st.integers(1, 64 * MIB),
    concurrency=st.none() | st.integers(1, 64),
)
def test_a_plan_keeps_every_limit(size: int, part: int | None, concurrency: int | None) -> None:
    """The number of parts, the smallest part, and the window."""
    plan = plan_upload(size, Transfer(part_size=part, concurrency=concurrency), smallest=5 * MIB)
    assert 1 <= len(plan.parts) <= MOST_PARTS
    assert min((part.size for part in plan.parts[:-1]), default=5 * MIB) >= 5 * MIB
    assert 1 <= plan.width <= plan.widest <= (concurrency or 64)


def test_the_memory_bound_limits_the_window() -> None:
    """Whatever else was wished for."""
    assert plan_upload(1 << 30, Transfer(memory=8 * MIB, concurrency=50), smallest=5 * MIB).widest == 4
    assert plan_upload(1 << 30, Transfer(memory=1), smallest=5 * MIB).width == 1


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1, 300_000_000])
def test_the_ranges_of_a_plan_cover_the_file_once(size: int) -> None:
    """In order, without a gap."""
    assert_covers(plan_upload(size, Transfer(), smallest=5 * MIB), size)


def assert_covers(plan: PartPlan, size: int) -> None:
    parts = plan.parts
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert (parts[0].start, parts[-1].end) == (0, size) if size else not parts
    assert all(left.end == right.start for left, right in itertools.pairwise(parts))


@pytest.mark.parametrize("size", [100_000_000, 256 * MIB, 300_000_000, 1 << 30])
def test_the_window_is_full_until_the_end(size: int) -> None:
    """300 MB are not cut into two full rounds and a nearly empty one."""
    plan = plan_upload(size, Transfer(), smallest=5 * MIB)
    assert len(plan.parts) % plan.width in (0, plan.width - 1)


def test_a_server_at_hand_gets_fewer_and_longer_parts():
    """Each connection is fast there, and more of them only cost processor time; the window may still grow."""
    far = plan_upload(256 * MIB, Transfer(), smallest=5 * MIB, round_trip=0.02)
    near = plan_upload(256 * MIB, Transfer(), smallest=5 * MIB, round_trip=0.001)
    assert (near.width, near.widest) == (4, far.widest)
    assert len(near.parts) == 8
    assert far.width > 2 * near.width
    assert plan_upload(256 * MIB, Transfer(concurrency=20), smallest=5 * MIB, round_trip=0.001).width == 20


def test_from_a_server_at_hand_come_fewer_and_longer_ranges() -> None:
    """A request costs more processor time there than a round trip."""
    missing = [(0, 256 * MIB)]
    far = plan_download(missing, Transfer(), round_trip=0.02)
    near = plan_download(missing, Transfer(), round_trip=0.001)
    assert (near.width, len(near.parts)) == (4, 8)
    assert far.width > 2 * near.width
    assert plan_download(missing, Transfer()).parts == far.parts  # not known yet
    assert plan_download(missing, Transfer(concurrency=20), round_trip=0.001).width == 20


def test_a_plan_survives_its_journal() -> None:
    """And what is not a plan for this file is no plan."""
    plan = plan_upload(300_000_000, Transfer(), smallest=5 * MIB)
    noted = json.loads(json.dumps(plan.lengths))
    assert with_lengths(noted, plan.size, smallest=5 * MIB) == plan.parts
    for wrong in (None, 7, [7], [[1, "x"]], [[2, 5]], [[-1, 5], [1, plan.size + 5]], [[10**9, 1]], [[1, float("inf")]]):
        assert with_lengths(wrong, plan.size, smallest=5 * MIB) is None
    assert with_lengths([[1, 5], [1, plan.size - 5]], plan.size, smallest=5 * MIB) is None


def source(size: int, changed: set[int]) -> Source:
    blocks = -(-size // BLOCK)
    return Source("base.h5", Version("1"), size, frozenset(set(range(blocks)) - changed))


@given(
    size=st.integers(1, 120 * BLOCK), changed=st.sets(st.integers(0, 119)), part=st.none() | st.integers(1, 64 * MIB)
)
def test_a_delta_copies_every_unchanged_block_and_sends_every_other(
    size: int, changed: set[int], part: int | None
) -> None:
    """In parts that S3 takes."""
    base = source(size, changed)
    plan = plan_delta(size, base, Transfer(part_size=part), uneven=True)
    assert_covers(plan, size)
    assert min((part.size for part in plan.parts[:-1]), default=SMALLEST) >= SMALLEST
    unchanged = sum(min(BLOCK, size - block * BLOCK) for block in base.unchanged)
    assert sum(part.size for part in plan.parts if base.holds(part)) == unchanged


@pytest.mark.parametrize("every", [1, 2, 3, 50, 10**9])
def test_even_a_delta_of_five_terabytes_has_few_enough_parts(every: int) -> None:
    """However its changes are scattered; S3 takes 10,000 parts."""
    size = 5 * 10**12
    plan = plan_delta(size, source(size, set(range(0, size // BLOCK, every))), Transfer(), uneven=True)
    assert_covers(plan, size)
    assert len(plan.parts) <= MOST_PARTS
    assert min(part.size for part in plan.parts[:-1]) >= SMALLEST
    assert max(part.size for part in plan.parts) <= 5 << 30


def test_a_delta_is_few_large_copies_and_many_small_parts() -> None:
    """95 % of 1 GiB frozen: connections share what is sent, and requests are few."""
    size = 1 << 30
    base = source(size, set(range(122, 128)))
    plan = plan_delta(size, base, Transfer(), uneven=True)
    sent = [part.size for part in plan.parts if not base.holds(part)]
    assert sum(sent) == 6 * BLOCK
    assert max(sent) < 6 * MIB
    assert len(plan.parts) - len(sent) <= 16


def test_a_service_that_wants_parts_of_one_size_gets_them() -> None:
    """One block each."""
    size = 10 * BLOCK + 5
    plan = plan_delta(size, source(size, {3}), Transfer(), uneven=False)
    assert {part.size for part in plan.parts[:-1]} == {BLOCK}


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
    asyncio.run(slide(jobs, ConcurrencyWindow(7)))
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
        asyncio.run(slide((partial(job, n) for n in range(100)), ConcurrencyWindow(5)))
    assert len(started) <= 5
    assert sorted(started) == sorted(ended)


def test_a_window_narrows_when_told_and_widens_slowly() -> None:
    """Multiplicative decrease, additive increase."""
    window = ConcurrencyWindow(16)
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


def rounds(window: ConcurrencyWindow, clock: list[float], speed: Callable[[int], float], count: int) -> None:
    """Let `count` windows' worth of jobs of one byte succeed, at the speed (bytes per second) of each width."""
    for _ in range(count):
        width = window.width
        for _ in range(width):
            clock[0] += 1 / speed(width)
            window.succeeded(1)


def test_a_window_grows_while_it_pays() -> None:
    """Slow connections on a wide link: each one more is as fast as the others."""
    clock = [0.0]
    window = ConcurrencyWindow(16, 64, lambda: clock[0])
    rounds(window, clock, lambda width: 8.0 * width, 8)
    assert window.width == 64


def test_a_window_does_not_grow_where_the_link_is_full() -> None:
    """It goes back to the width that was as fast with fewer connections."""
    clock = [0.0]
    window = ConcurrencyWindow(16, 64, lambda: clock[0])
    rounds(window, clock, lambda width: 8.0 * min(width, 20), 12)
    assert window.width == 25
    clock, window = [0.0], ConcurrencyWindow(16, 64, lambda: clock[0])
    rounds(window, clock, lambda _: 8.0, 12)
    assert window.width == 16


def test_a_window_that_was_told_to_slow_down_seeks_no_further() -> None:
    """It comes back to where it was, and stays."""
    clock = [0.0]
    window = ConcurrencyWindow(16, 64, lambda: clock[0])
    window.throttled()
    rounds(window, clock, lambda width: 8.0 * width, 60)
    assert window.width == 16


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
        assert begun.wait(HANG)
        waits = threading.main_thread().ident
        until(lambda: sys._current_frames()[waits].f_code.co_name == "wait")  # within Future.result
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        event_loop.run(fsspec.asyn.get_loop(), work())
    assert ended.is_set()


def test_the_loops_own_thread_is_refused() -> None:
    """It would wait for itself."""
    loop = fsspec.asyn.get_loop()

    async def inside() -> None:
        event_loop.run(loop, asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="thread of your own"):
        event_loop.run(loop, inside())


def test_a_request_that_stands_still_is_given_up() -> None:
    """And one that moves, however slowly, is not."""
    looks = itertools.count()
    enough = asyncio.Event()

    async def slow() -> str:
        await enough.wait()
        return "done"

    def moved() -> int:
        look = next(looks)
        if look == 6:
            enough.set()
        return look

    assert asyncio.run(stop_if_stalled(slow(), moved, "x", patience=0.02)) == "done"
    with pytest.raises(TransientError, match="no byte has moved"):
        asyncio.run(stop_if_stalled(asyncio.sleep(5), lambda: 0, "x", patience=0.02))


def test_a_pace_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """One megabyte at two megabytes a second takes half a second, minus the burst."""
    now = 100.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    async def spend() -> None:
        pace = RateLimit(2e6)
        for _ in range(20):
            await pace.spend(50_000)

    with monkeypatch.context() as patch:
        patch.setattr("remote_ckpt.stores.transfer.rate_limit.time", SimpleNamespace(monotonic=lambda: now))
        patch.setattr("remote_ckpt.stores.transfer.rate_limit.asyncio", SimpleNamespace(sleep=sleep))
        asyncio.run(spend())
    assert now == pytest.approx(100.4)


def test_a_cancelled_wait_for_the_disk_outlasts_the_work() -> None:
    """Whoever closes the descriptor next knows that nobody uses it."""
    disk, done, begun, end = FileIO(), [], threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert end.wait(HANG)
        done.append(True)

    async def cancelled() -> None:
        task = asyncio.ensure_future(disk.do(work))
        await asyncio.to_thread(begun.wait, HANG)
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, end.set)
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
        assert list(pool.map(lambda n: event_loop.run(loop, echo(n)), range(100))) == list(range(100))
