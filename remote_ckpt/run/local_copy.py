"""A copy of a cached checkpoint, at the path given by the user."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from remote_ckpt.digests import digest_file
from remote_ckpt.errors import LocationError
from remote_ckpt.records import Checkpoint


def give(path: Path, to: Path, checkpoint: Checkpoint) -> Path:
    """Copy a verified file to a file, or into a folder under the checkpoint's own name; return the copy's path.

    A file at `to` is replaced, and readers see the old file or the new one, never a part. In a folder nothing is
    replaced. After an error no partial file is left.

    Raises:
        LocationError: The folder holds something else of that name, which is left as it is.
        OSError: The copy cannot be written.
    """
    into_folder = to.is_dir()
    target = to / checkpoint.key.rsplit("/", 1)[-1] if into_folder else to
    target.parent.mkdir(parents=True, exist_ok=True)
    # A short name of its own: the target's name may be the longest that the disk allows.
    partial = target.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        shutil.copyfile(path, partial)
        if into_folder:
            _add(partial, target, checkpoint)
        else:
            partial.replace(target)  # atomic: another process that reads `target` never sees half a file
    finally:
        partial.unlink(missing_ok=True)
    return target


def _add(partial: Path, target: Path, checkpoint: Checkpoint) -> None:
    """Move a file to `target`; accept an existing file there only if the sha256 is the checkpoint's."""
    try:
        os.link(partial, target)  # atomic, and unlike a rename it fails if another process took the name first
        return
    except FileExistsError:  # perhaps an earlier call's copy, or that of another process: compared below
        pass
    except OSError:  # a filesystem without hard links
        # Not atomic: a file that another process creates between the look and the rename is replaced.
        if not os.path.lexists(target):
            partial.rename(target)
            return
    if target.is_symlink() or not target.is_file() or digest_file(target).sha256 != checkpoint.sha256:
        raise LocationError(f"{target} exists already, and was not overwritten. Name the file itself to replace it.")
