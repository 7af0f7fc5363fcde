"""Write later weights files over the first one: its bytes, with the data of every dataset replaced.

Two saves of one model have the same layout, and every byte outside the datasets is equal (measured, h5py 3.14). So the
first file, as Keras writes it, is a template: what lies between the datasets is kept, and a later file is those gaps
and the new data, written in the order of the file with `writev`: no h5py, no second copy of the model, no GIL.
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

_BATCH_BYTES = 8 << 20  # what one writev gathers at most, unless one tensor alone is larger
_BATCH_BUFFERS = 512  # half of IOV_MAX on Linux and macOS
_PLAIN_KINDS = frozenset("biufc")  # stored by h5py as the very bytes NumPy holds
_CUSTOM_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2")  # stored as opaque bytes, equally verbatim


class Dataset(NamedTuple):
    """One dataset as the writer sees it before it is written: place in the file, shape, dtype name."""

    path: str
    shape: tuple[int, ...]
    dtype: str


class Layout(Protocol):
    """All that decides the bytes outside the data. Equal layouts give equal files but for the data."""

    @property
    def key(self) -> Hashable:
        """What two layouts are compared by: names, order, attributes, shapes and dtypes."""

    @property
    def nbytes(self) -> int:
        """The bytes of the data."""

    @property
    def datasets(self) -> Sequence[Dataset] | None:
        """The datasets in the order of their values; None when no template can serve such a file."""


class Template:
    """The bytes between the datasets of one file, and where each dataset's data goes. Immutable."""

    def __init__(self, size: int, gaps: Sequence[tuple[int, bytes]], places: Sequence[tuple[int, int]]) -> None:
        self._size = size
        self._pieces: list[tuple[int, bytes | int]] = sorted(
            [*gaps, *((offset, index) for offset, index in places)], key=lambda piece: piece[0]
        )

    @classmethod
    def learn(cls, path: Path, datasets: Sequence[Dataset]) -> Template | None:
        """Read the layout of a file just written.

        Args:
            path: A complete file that holds exactly `datasets`.
            datasets: What the file holds, in the order in which `write` will ask for the data.

        Returns:
            None when a dataset's data is not stored as its plain bytes in one run: strings, chunks, filters, unknown
            dtypes. Such files go through h5py each time.
        """
        with h5py.File(path, "r") as file:
            found = [_run_of_bytes(file, dataset) for dataset in datasets]
        places: list[tuple[int, int, int]] = []
        for index, run in enumerate(found):
            if run is None:
                return None
            if run[1]:
                places.append((*run, index))
        places.sort()
        size = path.stat().st_size
        gaps = _bytes_between(path, size, places)
        return None if gaps is None else cls(size, gaps, [(offset, index) for offset, _, index in places])

    def write(self, path: Path, take: Callable[[int], np.ndarray]) -> None:
        """Write the file; `take(i)` gives the data of dataset i, is called once each, and may release it.

        What is at `path` is written over in place: its pages are at hand, and finding new ones takes as long again.
        Memory holds one batch (8 MiB) or the largest tensor. After an error the file is incomplete; remove it.

        Raises:
            OSError: The disk refuses; a full one does so before anything is written.
            ValueError: The data is not what the template was learnt from.
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
    """Writes the files of one model: the first of each layout as Keras does, the others over it.

    Safe to use from several threads; keeps the template of the latest layout only (about a megabyte per thousand
    variables).
    """

    def __init__(self) -> None:
        self._known: tuple[Hashable, Template | None] | None = None

    def write(
        self,
        path: Path,
        layout: Layout,
        take: Callable[[int], np.ndarray],
        write_first: Callable[[Path, Callable[[int], np.ndarray]], None],
    ) -> None:
        """Write one file. After an error it is incomplete; remove it.

        Args:
            path: Replaced if it exists.
            layout: What the file looks like.
            take: Gives the data of value i, once; may release it.
            write_first: Writes a file of this layout without a template, given `path` and `take`.

        Raises:
            SaveFailedError: A reader would refuse such a file.
        """
        known = self._known
        if known is not None and known[0] == layout.key and known[1] is not None:
            known[1].write(path, take)
            return
        write_first(path, take)
        if known is None or known[0] != layout.key:
            check_written(path, ".weights.h5")  # later files of this layout differ in their numbers alone
            self._known = layout.key, _learn(path, layout)


def _learn(path: Path, layout: Layout) -> Template | None:
    datasets = layout.datasets
    return None if datasets is None else Template.learn(path, datasets)


def _run_of_bytes(file: h5py.File, dataset: Dataset) -> tuple[int, int] | None:
    """Return (offset, bytes) of a dataset's data, or None where the file's bytes are not NumPy's bytes."""
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
    return os.open(path, flags & ~os.O_TRUNC, 0o666)


def _reserve(descriptor: int, size: int) -> None:
    """Allocate the file's blocks at once: a quarter faster to write (measured, ext4), and a full disk says so first."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except AttributeError:  # macOS
        return
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def _bytes_of(array: np.ndarray) -> memoryview:
    # bfloat16 has no buffer protocol of its own; its bytes do.
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _write_all(descriptor: int, views: list[memoryview]) -> None:
    while views:
        written = os.writev(descriptor, views)
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if written:
            views[0] = views[0][written:]
