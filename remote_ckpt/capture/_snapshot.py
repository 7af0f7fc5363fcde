"""Snapshots: the state of a model at the instant of capture, to be written later, once, on another thread."""

from __future__ import annotations

import abc
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from remote_ckpt.capture._apart import apart
from remote_ckpt.weights_file import Layout, TemplateWriter, check_written


class Snapshot(abc.ABC):
    """A snapshot: the state of a model at the instant of capture; `write` gives the file that Keras would have written.

    Made on the training thread; written on one other thread, while training may go on. A snapshot that still waits may
    be discarded on any thread.
    """

    @property
    @abc.abstractmethod
    def nbytes(self) -> int:
        """About how many bytes the file will have; for disk budgets, not for comparison."""

    @property
    def written(self) -> int:
        """Bytes of `nbytes` already on the disk of the future file, before `write`."""
        return 0

    @abc.abstractmethod
    def write(self, path: Path) -> None:
        """Write the file, replacing an existing file. Callable once; does not fsync.

        Holds no second copy of the model: at most the largest tensor at a time. After an error the file at `path` is
        incomplete or absent, and the snapshot is spent.

        Raises:
            OSError: The disk refuses.
            SaveFailedError: A reader would refuse such a file.
            ValueError: The snapshot was written or discarded before.
        """

    @abc.abstractmethod
    def discard(self) -> None:
        """Release the captured state without writing. Idempotent; no effect after `write`."""


class ReferenceSnapshot(Snapshot):
    """References to tensors (copy-on-write in TensorFlow, device copies elsewhere), and the layout of the file."""

    def __init__(
        self,
        layout: Layout,
        values: list[Any],
        writer: TemplateWriter,
        to_numpy: Callable[[Any], np.ndarray],
        write_first: Callable[[Path, Callable[[int], np.ndarray]], None],
    ) -> None:
        self._layout = layout
        self._values: list[Any] | None = values
        self._writer = writer
        self._to_numpy = to_numpy
        self._write_first = write_first

    @property
    def nbytes(self) -> int:
        """The bytes of the tensors; HDF5 adds about a kilobyte for each."""
        return self._layout.nbytes

    def write(self, path: Path) -> None:
        """Write the weights file; see `Snapshot.write`. Each reference is released once turned into an array."""
        values, self._values = self._values, None
        if values is None:
            raise ValueError(f"{path}: this snapshot was written or discarded before")

        def take(index: int) -> np.ndarray:
            value, values[index] = values[index], None
            return self._to_numpy(value)

        self._writer.write(path, self._layout, take, self._write_first)

    def discard(self) -> None:
        """Release the references."""
        self._values = None


class FileSnapshot(Snapshot):
    """A file already written on the training thread; `write` moves the file to the final path."""

    def __init__(self, save: Callable[[str], object], directory: Path | None, suffix: str) -> None:
        """Call `save(path)` with a fresh path in `directory` (default: the system's temporary folder).

        Pass a directory on the filesystem where the file will be written: then `write` is a rename.

        Raises:
            Exception: Whatever `save` raises; nothing is left behind.
        """
        self._in_place = directory is not None
        self._suffix = suffix
        self._folder: Path | None = Path(tempfile.mkdtemp(prefix="remote_ckpt-", dir=directory))
        self._file = self._folder / f"model{suffix}"
        try:
            with apart():
                save(str(self._file))
            self._size = self._file.stat().st_size
        except BaseException:  # Ctrl-C too: nobody would remove the file, as there is no snapshot to discard
            self.discard()
            raise

    @property
    def nbytes(self) -> int:
        """The size of the file."""
        return self._size

    @property
    def written(self) -> int:
        """The size of the file if a directory was given, as `write` is a rename then; else 0."""
        return self._size if self._in_place else 0

    def write(self, path: Path) -> None:
        """Move the file to `path`: a rename within a filesystem, a copy otherwise. See `Snapshot.write`."""
        if self._folder is None:
            raise ValueError(f"{path}: this snapshot was written or discarded before")
        try:
            check_written(self._file, self._suffix)
            shutil.move(os.fspath(self._file), os.fspath(path))
        finally:  # after an error too: a snapshot is spent by its first `write`
            self.discard()

    def discard(self) -> None:
        """Remove the waiting file."""
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


class WholeModelSnapshot(FileSnapshot):
    """A whole model (`.keras` or `.h5`), saved by Keras on the training thread: a configuration cannot be frozen.

    Training is blocked for one `model.save`; only the move to the spool and the upload happen in the background.
    """

    def __init__(self, model: Any, directory: Path, suffix: str = ".keras") -> None:
        """Save the model into `directory`.

        Args:
            model: A built Keras model.
            directory: A folder on the filesystem where the file will be written: then `write` is a rename.
            suffix: ".keras" or ".h5", as in the future name of the file.

        Raises:
            Exception: Whatever `model.save` raises; nothing is left behind.
        """
        super().__init__(model.save, directory, suffix)
