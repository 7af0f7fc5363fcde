"""A checkpoint in the cache, copied to where the user wants it."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from remote_ckpt.checkpoint import Checkpoint
from remote_ckpt.digests import digest_file
from remote_ckpt.errors import LocationError


def give(path: Path, to: Path, checkpoint: Checkpoint) -> Path:
    """Copy a verified file to a file, or into a folder under the checkpoint's own name; return the copy.

    Raises:
        LocationError: The folder holds something else of that name, which is left alone.
    """
    into_folder = to.is_dir()
    target = to / checkpoint.key.rsplit("/", 1)[-1] if into_folder else to
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{uuid.uuid4().hex}.partial")  # as a name may be as long as the disk allows
    try:
        shutil.copyfile(path, partial)
        if into_folder:
            _add(partial, target, checkpoint)
        else:
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _add(partial: Path, target: Path, checkpoint: Checkpoint) -> None:
    """Give a file its name unless that is taken, by anything but the very same bytes."""
    try:
        os.link(partial, target)
        return
    except FileExistsError:
        pass
    except OSError:  # a disk without links
        if not os.path.lexists(target):
            partial.rename(target)
            return
    if target.is_symlink() or not target.is_file() or digest_file(target).sha256 != checkpoint.sha256:
        raise LocationError(f"{target} exists already, and was not overwritten. Name the file itself to replace it.")
