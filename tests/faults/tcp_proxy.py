"""A proxy that knows nothing of HTTP: it passes bytes on, resets connections, stalls, and flips bits."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from waiting import HANG


@dataclass(frozen=True)
class Chunk:
    """Some bytes on their way; `number` counts all chunks of the proxy from 1."""

    number: int
    up: bool  # towards the server
    data: bytes


@dataclass(frozen=True)
class Stall:
    """Nothing moves for a while."""

    seconds: float


RESET = "reset"
Trouble = bytes | Stall | str | None
"""Other bytes in a chunk's place, a `Stall`, `RESET`, or None: as it is."""


@dataclass
class TcpProxy:
    """Asks `trouble` about each chunk."""

    host: str
    port: int
    trouble: Callable[[Chunk], Trouble] = lambda _: None
    endpoint: str = ""
    count: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def mend(self) -> None:
        """From now on all goes well."""
        self.trouble = lambda _: None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        there, back = await asyncio.open_connection(self.host, self.port)
        flows = self._flow(reader, back, True, writer), self._flow(there, writer, False, back)
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the proxy ends
                await asyncio.gather(*flows, return_exceptions=True)
        finally:
            for end in (writer, back):
                end.transport.abort()
            self._tasks.discard(task)

    async def _flow(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, up: bool, other: asyncio.StreamWriter
    ) -> None:
        while data := await source.read(1 << 14):
            self.count += 1
            trouble = self.trouble(Chunk(self.count, up, data))
            if trouble == RESET:
                target.transport.abort()
                other.transport.abort()
                return
            if isinstance(trouble, Stall):
                await asyncio.sleep(trouble.seconds)
            target.write(trouble if isinstance(trouble, bytes) else data)
            await target.drain()
        with contextlib.suppress(OSError):
            target.write_eof()


@contextlib.contextmanager
def tcp_proxy(endpoint: str) -> Iterator[TcpProxy]:
    """Run a proxy before a server, in a thread of its own, on a free port."""
    upstream = urlsplit(endpoint)
    proxy = TcpProxy(upstream.hostname, upstream.port)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> asyncio.Server:
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        proxy.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def stop() -> None:
        server.close()
        tasks = list(proxy._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(HANG)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(HANG)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
