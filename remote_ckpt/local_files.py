"""Private folders: for this user alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Create a folder and all missing parents with mode 0700; existing folders are not changed.

    `Path.mkdir(parents=True)` applies its mode to the last folder only. Another user who may write to a parent could
    then replace the folder.

    Raises:
        OSError: A folder cannot be created.
    """
    missing = []
    for path in (folder, *folder.parents):
        if path.exists():
            break
        missing.append(path)
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)  # another process may create the same folder at this moment


def is_ours(folder: Path) -> bool:
    """Return whether `folder` is a real folder, not a link, owned by this user.

    Another owner could have put anything into the folder.

    Raises:
        OSError: The folder does not exist or cannot be inspected.
    """
    found = folder.lstat()  # a single call: between two calls the folder may be removed or replaced
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
