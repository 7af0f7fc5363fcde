"""Progress bars of transfers: bytes, rate, time left; on stderr, and only if stderr is a terminal."""

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
    """Show a progress bar while the block runs.

    Args:
        doing: The text beside the bar.
        total: Bytes.

    Yields:
        A function for the store to call with each number of bytes moved, from any thread.
    """
    console = stderr()
    if not console.is_terminal:  # rich before 15 prints an empty line after a disabled bar
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
