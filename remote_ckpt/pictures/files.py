"""Writing pictures and pages to files."""

from __future__ import annotations

import os
from pathlib import Path

from remote_ckpt.errors import RemoteCkptError


class PictureError(RemoteCkptError):
    """A picture or page cannot be drawn or written; the message gives the reason."""


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file: readers find the complete new content, or the old state. An existing file is replaced.

    The file is not synced to the disk. Two threads of one process must not write the same path at the same time.

    Raises:
        PictureError: The file cannot be written; an existing file is unchanged.
        OSError: The partial file cannot be removed, for example because the parent is not a folder.
    """
    target = Path(path)
    # Same folder, so that the rename stays in one file system. With the process id, so that two processes that write
    # the same picture do not write into one partial file: the later rename wins.
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(target)
    except OSError as exc:
        raise PictureError(f"{target} could not be written: {exc.strerror or exc}.") from exc
    finally:
        partial.unlink(missing_ok=True)  # after a success the rename has taken it away
