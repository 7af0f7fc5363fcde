"""Progress bars of transfers: bytes, rate, time left; on stderr, and only where somebody looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from remote_ckpt import stores
from remote_ckpt.cli._console import stderr


@contextmanager
def transfer(doing: str, total: int) -> Iterator[stores.Progress]:
    """Show a bar for `total` bytes while the block runs; yields what the store is to call, from any thread."""
    console = stderr()
    if not console.is_terminal:  # rich before 15 ends even a disabled bar with an empty line
        yield lambda _count: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(doing, total=total)
        yield lambda count: bars.update(task, advance=count)
