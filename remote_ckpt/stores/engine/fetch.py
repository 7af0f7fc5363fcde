"""Ranges of one object, in parallel, into one file."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from remote_ckpt import retry
from remote_ckpt.errors import SpoolError, SpoolFullError
from remote_ckpt.retry import RetryPolicy
from remote_ckpt.stores.base import MIB, Progress
from remote_ckpt.stores.engine.disk import Disk, write_range
from remote_ckpt.stores.engine.pace import Pace
from remote_ckpt.stores.engine.plan import Plan, Range
from remote_ckpt.stores.engine.window import Window, slide

Sink = Callable[[Sequence[bytes]], Awaitable[None]]
"""Takes the next pieces of a range, and returns when they are written."""

Get = Callable[[Range, Sink], Awaitable[None]]
"""Gives exactly the bytes of a range to a sink, always of the same version of the object."""

_BATCH = MIB  # bytes: large enough to be worth a thread's while, small enough for its memory to be used again at once


async def fetch_ranges(
    plan: Plan, target: Path, get: Get, disk: Disk, policy: RetryPolicy, progress: Progress | None
) -> None:
    """Write all ranges of `plan` to `target`, which has its full size from the start.

    After a transient error `get` is called again, for that range alone.

    Raises:
        SpoolError: The local file cannot be written.
        StoreError: What `get` raised in the end.
    """
    fd = await disk.do(partial(_create, target, plan.size))
    window = Window(plan.width)

    async def one(part: Range) -> None:
        async def once() -> None:
            at = part.start

            async def write(pieces: Sequence[bytes]) -> None:
                nonlocal at
                await disk.do(partial(_write, fd, pieces, at, target))
                at += sum(map(len, pieces))

            await get(part, write)

        await retry.call_async(once, policy, on_retry=lambda _: window.throttled())
        window.succeeded()
        if progress is not None:
            progress(part.size)

    try:
        await slide((partial(one, part) for part in plan), window)
    finally:
        os.close(fd)


async def pour(chunks: AsyncIterable[bytes], sink: Sink, pace: Pace) -> int:
    """Give chunks as they arrive to `sink`, in batches, at a pace; return how many bytes there were."""
    total, waiting, pieces = 0, 0, list[bytes]()
    async for chunk in chunks:
        await pace.spend(len(chunk))
        pieces.append(chunk)
        total, waiting = total + len(chunk), waiting + len(chunk)
        if waiting >= _BATCH:
            await sink(pieces)
            waiting, pieces = 0, []
    if pieces:
        await sink(pieces)
    return total


def collect(pieces: list[bytes]) -> Sink:
    """Return a sink that keeps everything in `pieces`."""

    async def keep(more: Sequence[bytes]) -> None:
        pieces.extend(more)

    return keep


def _create(target: Path, size: int) -> int:
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except OSError as exc:
        raise _local(exc, target) from exc
    try:
        _reserve(fd, size)
    except OSError as exc:
        os.close(fd)
        raise _local(exc, target) from exc
    return fd


def _reserve(fd: int, size: int) -> None:
    """Take the room at once, so that a full disk is known before the first byte has crossed the network."""
    os.ftruncate(fd, size)
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise


def _write(fd: int, pieces: Sequence[bytes], start: int, target: Path) -> None:
    try:
        write_range(fd, pieces, start)
    except OSError as exc:
        raise _local(exc, target) from exc


def _local(error: OSError, target: Path) -> SpoolError:
    kind = SpoolFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else SpoolError
    return kind(f"Cannot write {target}: {error.strerror}. Free some space there, or choose another folder.")
