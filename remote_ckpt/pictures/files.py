"""Pictures and pages become files."""

from __future__ import annotations

import os
from pathlib import Path

from remote_ckpt.errors import RemoteCkptError


class PictureError(RemoteCkptError):
    """A picture or page cannot be drawn or written; the message says what to do."""


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file that appears whole or not at all; one that was there is replaced.

    Raises:
        PictureError: It cannot be written; what was there is as it was.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(target)
    except OSError as exc:
        raise PictureError(f"{target} could not be written: {exc.strerror or exc}.") from exc
    finally:
        partial.unlink(missing_ok=True)
