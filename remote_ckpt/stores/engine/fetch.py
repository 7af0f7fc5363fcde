"""Ranges of one object, in parallel, into one file."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from remote_ckpt import retry
from remote_ckpt.errors import SpoolError, SpoolFullError
from remote_ckpt.retry import RetryPolicy
from remote_ckpt.stores.base import Progress
from remote_ckpt.stores.engine.disk import Disk, write_range
from remote_ckpt.stores.engine.plan import Plan, Range
from remote_ckpt.stores.engine.window import Window, slide

Get = Callable[[Range], Awaitable[list[bytes]]]


async def fetch_ranges(
    plan: Plan, target: Path, get: Get, disk: Disk, policy: RetryPolicy, progress: Progress | None
) -> None:
    """Write all ranges of `plan` to `target`, which has its full size from the start.

    `get` returns exactly the bytes of a range, in pieces, always of the same version of the object; after a transient
    error it is called again, for that range alone.

    Raises:
        SpoolError: The local file cannot be written.
        StoreError: What `get` raised in the end.
    """
    fd = await disk.do(partial(_create, target, plan.size))
    window = Window(plan.width)

    async def one(part: Range) -> None:
        async def once() -> list[bytes]:
            return await get(part)

        pieces = await retry.call_async(once, policy, on_retry=lambda _: window.throttled())
        await disk.do(partial(_write, fd, pieces, part.start, target))
        window.succeeded()
        if progress is not None:
            progress(part.size)

    try:
        await slide((partial(one, part) for part in plan), window)
    finally:
        os.close(fd)


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


def _write(fd: int, pieces: list[bytes], start: int, target: Path) -> None:
    try:
        write_range(fd, pieces, start)
    except OSError as exc:
        raise _local(exc, target) from exc


def _local(error: OSError, target: Path) -> SpoolError:
    kind = SpoolFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else SpoolError
    return kind(f"Cannot write {target}: {error.strerror}. Free some space there, or choose another folder.")
