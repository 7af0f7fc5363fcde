"""The bytes of a part, and their way to a socket."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from aiohttp import payload
from aiohttp.abc import AbstractStreamWriter

from remote_ckpt.stores.base import MIB
from remote_ckpt.stores.transfer.file_io import FileIO, read_range
from remote_ckpt.stores.transfer.part_plan import Range
from remote_ckpt.stores.transfer.rate_limit import RateLimit

HELD = MIB
"""Bytes of a part in memory while the part is sent; the socket's own buffers come on top."""

_SLICE = 256 * 1024


class Content(Protocol):
    """Bytes for repeated reading."""

    def __len__(self) -> int: ...

    def read(self, start: int, end: int) -> bytes:
        """Return bytes [start, end); may wait for the disk."""

    async def piece(self, start: int, end: int) -> bytes | memoryview:
        """Return bytes [start, end); the event loop does not wait for the disk."""


@dataclass(frozen=True)
class InMemory:
    """The content of small objects."""

    data: bytes

    def __len__(self) -> int:
        return len(self.data)

    def read(self, start: int, end: int) -> bytes:
        """Return bytes [start, end)."""
        return self.data[start:end]

    async def piece(self, start: int, end: int) -> memoryview:
        """Return bytes [start, end), not copied."""
        return memoryview(self.data)[start:end]


@dataclass(frozen=True)
class InFile:
    """A range of an open file, read only during sending, so many parts under way need little memory."""

    fd: int
    part: Range
    disk: FileIO

    def __len__(self) -> int:
        return self.part.size

    def read(self, start: int, end: int) -> bytes:
        """Return bytes [start, end) of the range.

        Raises:
            SpoolError: The file is shorter than it was.
        """
        return read_range(self.fd, self.part.start + start, self.part.start + end)

    async def piece(self, start: int, end: int) -> bytes:
        """Return bytes [start, end) of the range, read in a thread."""
        return await self.disk.do(partial(self.read, start, end))


class PartBody:
    """The body of a request: sends slice by slice, at a limited rate, and counts the bytes sent.

    For botocore this is a file object: botocore would wrap plain bytes in a file that aiohttp reads in small pieces.
    For aiohttp this is a payload of a type registered below. The slices are views: the bytes are not copied before they
    reach the socket.

    Attributes:
        moved: Bytes given to the socket so far, in all attempts together; `head` and `tail` are not counted.
    """

    def __init__(self, content: Content, pace: RateLimit, *, head: bytes = b"", tail: bytes = b"") -> None:
        """Take a part's bytes, the rate limit, and bytes to send before and after the part."""
        self.head = head
        self.tail = tail
        self.moved = 0
        self._content = content
        self._pace = pace
        self._position = 0

    def __len__(self) -> int:
        return len(self.head) + len(self._content) + len(self.tail)

    def md5(self) -> bytes:
        """Return the md5 of the bytes; may wait for the disk."""
        digest = hashlib.md5(usedforsecurity=False)
        for start, end in self._pieces():
            digest.update(self._content.read(start, end))
        return digest.digest()

    def tell(self) -> int:
        """Return the position for `read`."""
        return self._position

    def seek(self, position: int) -> int:
        """Set the position for `read`."""
        self._position = position
        return position

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes; botocore calls this if the user has turned on the signing of payloads."""
        start, end = self._position, len(self) if size < 0 else min(self._position + size, len(self))
        self._position = max(start, end)
        return self._between(start, end)

    async def write_to(self, writer: AbstractStreamWriter) -> None:
        """Send all bytes, from the beginning at each attempt."""
        if self.head:
            await writer.write(self.head)
        for start, end in self._pieces():
            view = memoryview(await self._content.piece(start, end))
            for at in range(0, len(view), _SLICE):  # `moved` grows with each slice; `watch` needs that to see progress
                piece = view[at : at + _SLICE]
                await self._pace.spend(len(piece))
                await writer.write(piece)
                self.moved += len(piece)
        if self.tail:
            await writer.write(self.tail)

    def _pieces(self) -> Iterator[tuple[int, int]]:
        size = len(self._content)
        return ((start, min(start + HELD, size)) for start in range(0, size, HELD))

    def _between(self, start: int, end: int) -> bytes:
        first, last = len(self.head), len(self.head) + len(self._content)
        inside = (max(start, first) - first, min(end, last) - first)
        middle = self._content.read(*inside) if inside[0] < inside[1] else b""
        return self.head[start:end] + middle + self.tail[max(0, start - last) : max(0, end - last)]


class _PartPayload(payload.Payload):
    """An aiohttp payload for a `PartBody`."""

    _autoclose = True  # nothing to close: the bytes are in memory, or in a file that the upload closes

    def __init__(self, value: PartBody, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("content_type", "application/octet-stream")
        super().__init__(value, *args, **kwargs)
        self._size = len(value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return str(PartBody.read(self._value), encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self._value.write_to(writer)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:  # noqa: ARG002
        await self._value.write_to(writer)  # the length was taken from the same bytes


payload.register_payload(_PartPayload, PartBody, order=payload.Order.try_first)
