"""Later weights files, made from the bytes of the first file with the data of every dataset replaced.

Two saves of one model have the same layout, and every byte outside the datasets is equal (measured, h5py 3.14). So the
first file, as Keras writes it, is a template: the bytes between the datasets are kept in memory. A later file consists
of these gaps and the new data, written in the order of the file with `writev`: without h5py, without a second copy of
the model, and without the GIL during the system calls.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import h5py
import numpy as np

from remote_ckpt.weights_file._own import check_written

_BATCH_BYTES = 8 << 20  # one writev is sent once this much is gathered; the last tensor may exceed it
_BATCH_BUFFERS = 512  # half of IOV_MAX on Linux and macOS
_PLAIN_KINDS = frozenset("biufc")  # h5py stores exactly the bytes that NumPy holds
_CUSTOM_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2")  # stored as opaque bytes, also unchanged


class Dataset(NamedTuple):
    """A dataset to be written: path in the file, shape, dtype name."""

    path: str
    shape: tuple[int, ...]
    dtype: str


class Layout(Protocol):
    """Everything on which the bytes outside the data depend. Files of equal layouts differ in the data alone."""

    @property
    def key(self) -> Hashable:
        """The key for comparing layouts: names, order, attributes, shapes and dtypes."""

    @property
    def nbytes(self) -> int:
        """The size of the data, in bytes."""

    @property
    def datasets(self) -> Sequence[Dataset] | None:
        """The datasets in the order of their values; None if such a file cannot be written from a template."""


class FileTemplate:
    """The bytes between the datasets of one file, and the offset of each dataset's data. Immutable."""

    def __init__(self, size: int, gaps: Sequence[tuple[int, bytes]], places: Sequence[tuple[int, int]]) -> None:
        self._size = size
        self._pieces: list[tuple[int, bytes | int]] = sorted(
            [*gaps, *((offset, index) for offset, index in places)], key=lambda piece: piece[0]
        )

    @classmethod
    def learn(cls, path: Path, datasets: Sequence[Dataset]) -> FileTemplate | None:
        """Read the layout of a file just written.

        Args:
            path: A complete file that holds exactly `datasets`.
            datasets: What the file holds, in the order in which `write` will ask for the data.

        Returns:
            None if a dataset's data is not stored as plain bytes in one piece (strings, chunks, filters, unknown
            dtypes), or if datasets overlap. Such files are written by h5py each time.
        """
        with h5py.File(path, "r") as file:
            found = [_run_of_bytes(file, dataset) for dataset in datasets]
        places: list[tuple[int, int, int]] = []
        for index, run in enumerate(found):
            if run is None:
                return None
            if run[1]:  # a dataset of no bytes has no place, and is never asked for
                places.append((*run, index))
        places.sort()
        size = path.stat().st_size
        gaps = _bytes_between(path, size, places)
        return None if gaps is None else cls(size, gaps, [(offset, index) for offset, _, index in places])

    def write(self, path: Path, take: Callable[[int], np.ndarray]) -> None:
        """Write a file of the template's layout.

        An existing file is overwritten in place: its pages are in memory already, and allocating new ones would double
        the time. Memory holds one batch (8 MiB, and at most one tensor more). After an error the file is incomplete;
        remove it.

        Args:
            path: The file; created if it does not exist.
            take: Returns the data of dataset i; called once for each dataset that has data, and may then release it.

        Raises:
            OSError: The disk refuses. A full disk is reported before any data is written, except on macOS and on file
                systems that cannot reserve space.
            ValueError: The data does not have the size of the data from which the template was learnt.
        """
        with open(path, "wb", buffering=0, opener=_keeping_what_is_there) as file:
            file.truncate(self._size)
            _reserve(file.fileno(), self._size)
            for batch in self._batches(take):
                _write_all(file.fileno(), batch)
            if file.tell() != self._size:
                raise ValueError(f"{path}: the data does not fit the template ({file.tell()} of {self._size} bytes)")

    def _batches(self, take: Callable[[int], np.ndarray]) -> Iterator[list[memoryview]]:
        batch: list[memoryview] = []
        gathered = 0
        for _, piece in self._pieces:
            view = memoryview(piece) if isinstance(piece, bytes) else _bytes_of(take(piece))
            batch.append(view)
            gathered += view.nbytes
            if gathered >= _BATCH_BYTES or len(batch) >= _BATCH_BUFFERS:
                yield batch
                batch, gathered = [], 0
        if batch:
            yield batch


class TemplateWriter:
    """The writer of one model's files: the first file of each layout as Keras writes it, later ones from a template.

    Safe to use from several threads; keeps the template of the latest layout only (about a megabyte per thousand
    variables).
    """

    def __init__(self) -> None:
        self._known: tuple[Hashable, FileTemplate | None] | None = None

    def write(
        self,
        path: Path,
        layout: Layout,
        take: Callable[[int], np.ndarray],
        write_first: Callable[[Path, Callable[[int], np.ndarray]], None],
    ) -> None:
        """Write a file. After an error the file is incomplete or refused; remove it.

        Args:
            path: With a template, an existing file is overwritten in place.
            layout: The layout of the file.
            take: Returns the data of value i; called at most once for each, and may then release it.
            write_first: Writes a file of this layout without a template, given `path` and `take`.

        Raises:
            SaveFailedError: A reader would refuse such a file.
            OSError: As in `FileTemplate.write`, or from `write_first`.
            ValueError: As in `FileTemplate.write`.
        """
        known = self._known  # one read: another thread may replace the layout and its template at any time
        if known is not None and known[0] == layout.key and known[1] is not None:
            known[1].write(path, take)
            return
        write_first(path, take)
        if known is None or known[0] != layout.key:
            check_written(path, ".weights.h5")  # later files of this layout differ in their numbers alone
            # Layout and template in one assignment: no thread sees the one without the other. If two threads write the
            # first file of a layout at the same time, both learn the template, and the later assignment stays.
            self._known = layout.key, _learn(path, layout)


def _learn(path: Path, layout: Layout) -> FileTemplate | None:
    datasets = layout.datasets
    return None if datasets is None else FileTemplate.learn(path, datasets)


def _run_of_bytes(file: h5py.File, dataset: Dataset) -> tuple[int, int] | None:
    """Return (offset, bytes) of a dataset's data, or None if the file's bytes are not NumPy's bytes."""
    stored = file[dataset.path]
    custom = dataset.dtype in _CUSTOM_FLOATS
    if not custom and (stored.dtype.kind not in _PLAIN_KINDS or stored.dtype.name != dataset.dtype):
        return None
    if not stored.dtype.isnative or stored.chunks is not None or stored.external or stored.shape != dataset.shape:
        return None
    if not stored.nbytes:
        return 0, 0
    offset = stored.id.get_offset()
    if offset is None or stored.id.get_storage_size() != stored.nbytes:
        return None
    return offset, stored.nbytes


def _bytes_between(path: Path, size: int, places: Sequence[tuple[int, int, int]]) -> list[tuple[int, bytes]] | None:
    gaps: list[tuple[int, bytes]] = []
    end = 0
    with path.open("rb") as file:
        for offset, nbytes, _ in [*places, (size, 0, -1)]:
            if offset < end:
                return None
            if offset > end:
                file.seek(end)
                gaps.append((end, file.read(offset - end)))
            end = offset + nbytes
    return gaps


def _keeping_what_is_there(path: str, flags: int) -> int:
    # Mode "wb" truncates, which would give back the pages of an existing file: see `FileTemplate.write`.
    return os.open(path, flags & ~os.O_TRUNC, 0o666)


def _reserve(descriptor: int, size: int) -> None:
    """Allocate the file's blocks at once: a quarter faster to write (measured, ext4); a full disk is reported first."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except AttributeError:  # macOS has no posix_fallocate; a full disk is reported by the writes there
        return
    except OSError as exc:
        # These three: the file system or kernel cannot reserve space. Others, as ENOSPC, are real failures.
        if exc.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def _bytes_of(array: np.ndarray) -> memoryview:
    # bfloat16 has no buffer protocol of its own; its bytes do.
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _write_all(descriptor: int, views: list[memoryview]) -> None:
    while views:
        written = os.writev(descriptor, views)  # may write less than asked for: the rest is sent again
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if written:
            views[0] = views[0][written:]
