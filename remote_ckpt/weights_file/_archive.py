"""Checks of a `.keras` archive before a loader opens the file: all members are examined before any is unpacked."""

from __future__ import annotations

import errno
import io
import stat
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

import h5py

from remote_ckpt.errors import CorruptCheckpointError
from remote_ckpt.weights_file._check import check_opened

WEIGHTS = "model.weights.h5"
_REQUIRED = frozenset({"config.json", "metadata.json", WEIGHTS})
_MAX_MEMBERS = 10_000
_MAX_DIRECTORY = 16 << 20  # bytes; zipfile reads the whole central directory into memory
_FLOOR = 64 << 20  # bytes that the members of any archive may declare, however small the archive is
_EXPANSION = 20  # times the archive's size that the members may declare
_COPY = 1 << 20  # bytes unpacked at a time
_END_RECORD = struct.Struct("<4s4H2LH")  # PKWARE APPNOTE 4.3.16
_LARGE_END_RECORD = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
_LOCATOR = struct.Struct("<4sLQL")  # 4.3.15
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # PKWARE APPNOTE 4.3.7


def check_keras_archive(path: Path, *, max_bytes: int | None = None) -> None:
    """Check a `.keras` archive: complete, no member outside the folder, weights accepted by `check`.

    Refused: a file that is not a zip or lacks the members Keras writes; absolute, climbing (`..`), repeated or odd
    member names, links, encryption, compression other than deflate; sizes far beyond the archive's; more than 10,000
    members, or a directory of more than 16 MiB. Bounded in memory; a compressed weights member is unpacked to a
    temporary file within the same bounds. `config.json` may still name code: load with Keras's `safe_mode=True`.

    Args:
        path: A local file, from anywhere.
        max_bytes: The most that the members, and the weights in memory, may take. Default: 64 MiB, or twenty times the
            archive's size if that is more.

    Raises:
        CorruptCheckpointError: The archive is not safe to load; the message gives the reason.
        OSError: The file cannot be read at all.
    """
    size = path.stat().st_size
    limit = max(_FLOOR, _EXPANSION * size) if max_bytes is None else max_bytes
    with path.open("rb") as file:
        _check_directory(file, path, size)
        try:
            with zipfile.ZipFile(file) as archive:
                _check_members(archive, path, size, limit)
                _check_weights(archive, file, path, limit)
        except CorruptCheckpointError:
            raise
        except OSError as exc:
            # Without an errno, or with EINVAL, the archive asked for a position that no file has: it is damaged. Any
            # other errno is a failure of the disk, and does not condemn the archive.
            if exc.errno not in (None, errno.EINVAL):
                raise
            raise _damaged(path, size, exc) from exc
        except Exception as exc:  # zipfile and zlib raise a dozen kinds of errors for damaged data
            raise _damaged(path, size, exc) from exc


def _damaged(path: Path, size: int, cause: Exception) -> CorruptCheckpointError:
    return CorruptCheckpointError(f"{path}: damaged .keras archive ({size} bytes): {type(cause).__name__}: {cause}")


def _check_directory(file: IO[bytes], path: Path, size: int) -> None:
    tail = min(size, (1 << 16) + _END_RECORD.size)  # the record may be followed by a comment of up to 65,535 bytes
    file.seek(size - tail)
    data = file.read(tail)
    position = data.rfind(b"PK\x05\x06")
    if position < 0 or position + _END_RECORD.size > len(data):
        raise CorruptCheckpointError(f"{path}: not a .keras archive ({size} bytes); damaged, or something else")
    _, _, _, _, members, length, _, _ = _END_RECORD.unpack_from(data, position)
    locator = size - len(data) + position - _LOCATOR.size
    for count, extent in ((members, length), *_large_directory(file, locator)):
        if count > _MAX_MEMBERS or extent > _MAX_DIRECTORY:
            raise _refusal(path, f"{count} members in a directory of {extent} bytes")
    file.seek(0)


def _large_directory(file: IO[bytes], position: int) -> Iterator[tuple[int, int]]:
    """Yield (number of members, bytes of the directory) from each possible zip64 end record.

    zipfile prefers these numbers to those of the plain end record. zipfile (Python 3.11) reads the record right before
    the locator and ignores the offset in the locator, so both places are examined.
    """
    for start in (position - _LARGE_END_RECORD.size, _located(file, position)):
        if start is None or start < 0:
            continue
        file.seek(start)
        data = file.read(_LARGE_END_RECORD.size)
        if data.startswith(b"PK\x06\x06") and len(data) == _LARGE_END_RECORD.size:
            *_, members, length, _ = _LARGE_END_RECORD.unpack(data)
            yield members, length


def _located(file: IO[bytes], position: int) -> int | None:
    """Return the offset of the zip64 end record from the locator at `position`; None without a locator."""
    if position < 0:
        return None
    file.seek(position)
    data = file.read(_LOCATOR.size)
    return int(_LOCATOR.unpack(data)[2]) if data.startswith(b"PK\x06\x07") and len(data) == _LOCATOR.size else None


def _check_members(archive: zipfile.ZipFile, path: Path, size: int, limit: int) -> None:
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise _refusal(path, f"{len(members)} members")
    names = {member.filename for member in members}
    if len(names) != len(members):
        raise _refusal(path, "two members with one name")
    if missing := _REQUIRED - names:
        raise CorruptCheckpointError(f"{path}: not a .keras archive: {', '.join(sorted(missing))} is missing")
    for member in members:
        _check_member(member, path)
    if sum(member.compress_size for member in members) > size:
        raise _refusal(path, "members that overlap or are cut off")
    if (declared := sum(member.file_size for member in members)) > limit:
        raise _refusal(path, f"members of {declared} bytes in an archive of {size} bytes (limit: {limit})")


def _check_member(member: zipfile.ZipInfo, path: Path) -> None:
    name = member.orig_filename
    if (
        not name
        or name != member.filename
        or "\\" in name
        or ":" in name
        or not name.isprintable()
        or PurePosixPath(name).is_absolute()
        or ".." in PurePosixPath(name).parts
    ):
        raise _refusal(path, f"the member name {name!r}")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise _refusal(path, f"a link, {name!r}")
    if member.flag_bits & 0x1:
        raise _refusal(path, f"an encrypted member, {name!r}")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _refusal(path, f"compression method {member.compress_type} of {name!r}")
    if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
        raise _refusal(path, f"a stored member whose sizes differ, {name!r}")


def _check_weights(archive: zipfile.ZipFile, file: IO[bytes], path: Path, limit: int) -> None:
    size = archive.getinfo(WEIGHTS).file_size
    with _weights(archive, file) as raw:
        check_opened(lambda: h5py.File(raw, "r"), raw, f"{path} ({WEIGHTS})", size, limit)


@contextmanager
def open_weights(path: Path) -> Iterator[h5py.File]:
    """Open the weights of a checked `.keras` archive, or an HDF5 file, for reading."""
    if path.suffix != ".keras":
        with h5py.File(path, "r") as opened:
            yield opened
        return
    with (
        path.open("rb") as file,
        zipfile.ZipFile(file) as archive,
        _weights(archive, file) as raw,
        h5py.File(raw) as opened,
    ):
        yield opened


@contextmanager
def _weights(archive: zipfile.ZipFile, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Yield the archive's weights as a file: a window of the archive, or a temporary copy of a compressed member."""
    member = archive.getinfo(WEIGHTS)
    with archive.open(member) as unpacked:  # zipfile compares the local header with the directory here
        if member.compress_type == zipfile.ZIP_STORED:
            yield cast("IO[bytes]", _Window(file, _start_of_data(file, member), member.file_size))
            return
        with tempfile.TemporaryFile() as copy:
            # No more than the declared bytes, which `_check_members` held against the limit: the stream may be longer.
            remaining = member.file_size
            while remaining and (block := unpacked.read(min(_COPY, remaining))):
                copy.write(block)
                remaining -= len(block)
            yield cast("IO[bytes]", copy)


def _start_of_data(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    file.seek(member.header_offset)
    *_, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return member.header_offset + _LOCAL_HEADER.size + int(name_length) + int(extra_length)


def _refusal(path: Path, what: str) -> CorruptCheckpointError:
    return CorruptCheckpointError(f"{path}: not safe to load: {what}")


class _Window(io.RawIOBase):
    """A stored member of an archive, as a read-only file; nothing is copied."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self._file, self._start, self._length, self._position = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # h5py hands a memoryview
        wanted = max(0, min(len(buffer), self._length - self._position))
        self._file.seek(self._start + self._position)
        data = self._file.read(wanted)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
