"""Folders for this user alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Create a folder and what is missing above it, with mode 0700 whatever the umask; what exists stays as it is.

    (`Path.mkdir(parents=True)` gives its mode to the last one only, and who may write to one above it may replace it.)

    Raises:
        OSError: It cannot be created.
    """
    missing = []
    for path in (folder, *folder.parents):
        if path.exists():
            break
        missing.append(path)
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def is_ours(folder: Path) -> bool:
    """Return whether this is a real folder of this user: no link, and nobody else's, who could have put anything in it.

    Raises:
        OSError: It cannot be looked at.
    """
    found = folder.lstat()  # one look: it may be removed before a second one
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
