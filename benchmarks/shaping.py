"""A link as object stores have it: each connection is slow, many are fast, and every answer is a round trip away.

    python benchmarks/shaping.py UPSTREAM_HOST:PORT BYTES_PER_SECOND ROUND_TRIP_SECONDS

forwards TCP from a free port on loopback, which it prints, until its standard input ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque

_CHUNK = 64 * 1024


class Pipe:
    """One direction of one connection: bytes leave `delay` seconds after they came, at `rate` bytes a second."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float, delay: float) -> None:
        self._reader, self._writer = reader, writer
        self._rate, self._delay = rate, delay
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._room = asyncio.Semaphore(max(4, int(rate * delay / _CHUNK) + 4))
        self._came = asyncio.Event()
        self._ended = False

    async def run(self) -> None:
        """Forward until the sender ends, then tell the receiver."""
        await asyncio.gather(self._receive(), self._send())

    async def _receive(self) -> None:
        try:
            while data := await self._reader.read(_CHUNK):
                await self._room.acquire()
                self._waiting.append((time.monotonic() + self._delay, data))
                self._came.set()
        except ConnectionError:
            pass
        finally:
            self._ended = True
            self._came.set()

    async def _send(self) -> None:
        free_at = 0.0
        try:
            while True:
                while not self._waiting:
                    if self._ended:
                        self._writer.write_eof()
                        return
                    self._came.clear()
                    await self._came.wait()
                due, data = self._waiting.popleft()
                now = time.monotonic()
                free_at = max(free_at, due, now - 0.05) + len(data) / self._rate
                if free_at > now:
                    await asyncio.sleep(free_at - now)
                self._writer.write(data)
                await self._writer.drain()
                self._room.release()
        except (ConnectionError, RuntimeError, OSError):
            self._writer.close()


async def serve(host: str, port: int, rate: float, round_trip: float) -> None:
    """Forward connections for as long as standard input is open."""
    connections = set[asyncio.Task[None] | None]()  # asyncio itself keeps only weak references

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        try:
            await asyncio.sleep(round_trip)  # the handshake
            up_reader, up_writer = await asyncio.open_connection(host, port)
            await asyncio.gather(
                Pipe(reader, up_writer, rate, round_trip / 2).run(), Pipe(up_reader, writer, rate, round_trip / 2).run()
            )
            up_writer.close()
        finally:
            writer.close()
            connections.discard(asyncio.current_task())

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    upstream_host, _, upstream_port = sys.argv[1].partition(":")

    async def until_told() -> None:
        await serve(upstream_host, int(upstream_port), float(sys.argv[2]), float(sys.argv[3]))
        os._exit(0)  # whoever measures has ended; connections still open need no farewell

    asyncio.run(until_told())
