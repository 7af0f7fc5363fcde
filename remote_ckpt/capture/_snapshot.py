"""What a capture gives: the state of a model at one instant, to be written later, once, on another thread."""

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
    """What Keras would have written at the instant of capture.

    Made on the training thread; written or discarded on any one other thread. Training may go on meanwhile.
    """

    @property
    @abc.abstractmethod
    def nbytes(self) -> int:
        """About how many bytes the file will have; for disk budgets, not for comparison."""

    @abc.abstractmethod
    def write(self, path: Path) -> None:
        """Write the file, replacing what is there. Can be called once; does not fsync.

        Holds no second copy of the model: at most the largest tensor at a time. After an error the file at `path` is
        incomplete or absent, and the snapshot is spent.

        Raises:
            OSError: The disk refuses.
            SaveFailedError: A reader would refuse such a file.
            ValueError: It was written or discarded before.
        """

    @abc.abstractmethod
    def discard(self) -> None:
        """Release what is held without writing it. Repeating, or calling it after `write`, changes nothing."""


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
        """Write the weights file; see `Snapshot.write`. Each reference is released when its data is written."""
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
    """A file that was written on the training thread, waiting to be moved into place."""

    def __init__(self, save: Callable[[str], object], directory: Path | None, suffix: str) -> None:
        """Call `save(path)` with a fresh path in `directory` (default: the system's temporary folder).

        Raises:
            Exception: Whatever `save` raises; nothing is left behind.
        """
        self._suffix = suffix
        self._folder: Path | None = Path(tempfile.mkdtemp(prefix="remote_ckpt-", dir=directory))
        self._file = self._folder / f"model{suffix}"
        try:
            with apart():
                save(str(self._file))
            self._size = self._file.stat().st_size
        except BaseException:
            self.discard()
            raise

    @property
    def nbytes(self) -> int:
        """The size of the file."""
        return self._size

    def write(self, path: Path) -> None:
        """Move the file to `path`: a rename within one filesystem, a copy otherwise."""
        if self._folder is None:
            raise ValueError(f"{path}: this snapshot was written or discarded before")
        try:
            check_written(self._file, self._suffix)
            shutil.move(os.fspath(self._file), os.fspath(path))
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the waiting file."""
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


class WholeModelSnapshot(FileSnapshot):
    """A whole model (`.keras` or `.h5`), saved by Keras on the training thread: its configuration cannot be frozen.

    Blocks for one `model.save`; only the way from there to the bucket is in the background.
    """

    def __init__(self, model: Any, directory: Path, suffix: str = ".keras") -> None:
        """Save the model into `directory`.

        Args:
            model: A built Keras model.
            directory: On the filesystem where it will be written, so that `write` is a rename.
            suffix: ".keras" or ".h5", as the name it will get.

        Raises:
            Exception: Whatever `model.save` raises; nothing is left behind.
        """
        super().__init__(model.save, directory, suffix)
