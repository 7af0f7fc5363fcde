"""Types of the named arguments for opening a run and for writing to a run: for type checkers and editors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from remote_ckpt.stores import Transfer


class RunOptions(TypedDict, total=False):
    """The named arguments of `Run`; `load_best`, `load_latest` and `find_runs` pass them on."""

    storage_options: dict[str, Any] | None
    cache_dir: str | os.PathLike[str] | None
    transfer: Transfer | None
    spool_dir: str | os.PathLike[str] | None
    signing_key: bytes | str | None


class WriterOptions(TypedDict, total=False):
    """The named arguments of `Run.writer`; see `writer.SeriesOptions`. `spool_limit` is in bytes."""

    save_best_only: bool
    keep_best: int | None
    keep_last: int | None
    threshold: float | None
    on_error: Literal["warn", "raise"]
    spool_limit: int | None
