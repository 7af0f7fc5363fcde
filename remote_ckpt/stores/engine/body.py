"""The bytes of one part on their way to a socket."""

from __future__ import annotations

from typing import Any

from aiohttp import payload
from aiohttp.abc import AbstractStreamWriter

from remote_ckpt.stores.engine.pace import Pace

_SLICE = 256 * 1024


class PartBody:
    """Bytes that go out slice by slice, at a pace, and that tell how far they have come.

    For botocore it is a file, because botocore would wrap plain bytes in one that aiohttp reads piecemeal; for aiohttp
    it is a payload of its own, whose slices are views: the bytes are not copied before they reach the socket.

    Attributes:
        data: The bytes.
        moved: Bytes handed to the socket so far, all attempts together.
    """

    def __init__(self, data: bytes, pace: Pace, *, head: bytes = b"", tail: bytes = b"") -> None:
        """Take a part's bytes, the pace at which they may go, and what is sent around them (not counted)."""
        self.data = data
        self.head = head
        self.tail = tail
        self.moved = 0
        self._pace = pace
        self._position = 0

    def __len__(self) -> int:
        return len(self.head) + len(self.data) + len(self.tail)

    def tell(self) -> int:
        """Return the position for `read`."""
        return self._position

    def seek(self, position: int) -> int:
        """Set the position for `read`."""
        self._position = position
        return position

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes; botocore reads when the user wants payloads signed."""
        whole = self.head + self.data + self.tail if self.head or self.tail else self.data
        piece = whole[self._position : None if size < 0 else self._position + size]
        self._position += len(piece)
        return piece

    def release(self) -> None:
        """Let go of the bytes: the layers below keep requests in reference cycles until the collector comes by."""
        self.data = b""

    async def write_to(self, writer: AbstractStreamWriter) -> None:
        """Send all bytes."""
        if self.head:
            await writer.write(self.head)
        view = memoryview(self.data)
        for start in range(0, len(view), _SLICE):
            piece = view[start : start + _SLICE]
            await self._pace.spend(len(piece))
            await writer.write(piece)
            self.moved += len(piece)
        if self.tail:
            await writer.write(self.tail)


class _PartPayload(payload.Payload):
    """How aiohttp sends a `PartBody`."""

    _autoclose = True  # nothing to close: it is memory

    def __init__(self, value: PartBody, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("content_type", "application/octet-stream")
        super().__init__(value, *args, **kwargs)
        self._size = len(value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return str(self._value.data, encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self._value.write_to(writer)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:  # noqa: ARG002
        await self._value.write_to(writer)  # the length was taken from the same bytes


payload.register_payload(_PartPayload, PartBody, order=payload.Order.try_first)
