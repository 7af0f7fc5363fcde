"""A proxy on loopback in front of a real server, that fails where a test wants it to."""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from waiting import HANG
from yarl import URL

_SLICE = 64 * 1024
_HOP = {"transfer-encoding", "content-length", "connection", "keep-alive"}


@dataclass(frozen=True)
class Seen:
    """A request: `path` with its query; `number` counts from 1 those with this method and path.

    `copied` names the object that S3 is asked to copy from; it is empty for other requests.
    """

    method: str
    path: str
    number: int
    copied: str = ""


@dataclass(frozen=True)
class Answer:
    """An answer in place of the server's."""

    status: int
    body: str = ""


CUT_BEFORE = "cut before"  # the connection breaks before the server sees the request
CUT_AFTER = "cut after"  # the server does it, and its answer is lost
CUT_BODY = "cut body"  # the answer breaks off in the middle
Fault = Answer | str | None

SLOW_DOWN = Answer(503, "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
INTERNAL = Answer(500, "<Error><Code>InternalError</Code><Message>We encountered an error.</Message></Error>")
EXPIRED = Answer(400, "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>")
DENIED = Answer(403, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")


@dataclass
class FaultyProxy:
    """Forwards to `upstream`; before that asks `fault` what should go wrong with a request.

    Attributes:
        endpoint: Where it listens.
        seen: All requests so far.
        answered: Those that the server has done.
        before: Awaited before each request is forwarded; may wait.
        rate: Bytes per second at which each answer's body leaves; None is at once.
        given: Bytes of bodies that left so far.
    """

    upstream: str
    fault: Callable[[Seen], Fault] = lambda _: None
    before: Callable[[Seen], Awaitable[None]] | None = None
    endpoint: str = ""
    seen: list[Seen] = field(default_factory=list)
    answered: list[Seen] = field(default_factory=list)
    rate: float | None = None
    given: int = 0

    def count(self, method: str, part: str = "") -> int:
        """Return how many requests had this method, and `part` in their path."""
        return sum(1 for seen in self.seen if seen.method == method and part in seen.path)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one request."""
        path = request.raw_path
        number = 1 + sum(1 for seen in self.seen if (seen.method, seen.path) == (request.method, path))
        seen = Seen(request.method, path, number, request.headers.get("x-amz-copy-source", ""))
        self.seen.append(seen)
        data = await request.read()
        if self.before is not None:
            await self.before(seen)
        fault = self.fault(seen)
        if isinstance(fault, Answer):
            return web.Response(status=fault.status, text=fault.body, content_type="application/xml")
        if fault == CUT_BEFORE:
            return _cut(request)
        status, headers, body = await self._forward(request, data)
        self.answered.append(seen)
        if fault == CUT_AFTER:
            return _cut(request)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = int(headers.get("X-Length", len(body)))
        await response.prepare(request)
        if fault == CUT_BODY:
            await self._give(response, body[: len(body) // 2])
            return _cut(request, response)
        if request.method != "HEAD":
            await self._give(response, body)
        return response

    async def _give(self, response: web.StreamResponse, body: bytes) -> None:
        for start in range(0, len(body), _SLICE):
            piece = body[start : start + _SLICE]
            await response.write(piece)
            self.given += len(piece)
            if self.rate is not None:
                await asyncio.sleep(len(piece) / self.rate)

    async def _forward(self, request: web.Request, data: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        url = URL(f"{self.upstream}{request.raw_path}", encoded=True)
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, url, headers=headers, data=io.BytesIO(data), allow_redirects=False
            ) as answer,
        ):
            body = await answer.read()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            if request.method == "HEAD":
                kept["X-Length"] = answer.headers.get("Content-Length", "0")
            return answer.status, kept, body


def _cut(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return response or web.Response()


@contextlib.contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """Run a proxy in a thread of its own, on a free port."""
    proxy = FaultyProxy(upstream)
    loop = asyncio.new_event_loop()
    app: Any = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(start(), loop).result(HANG)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(HANG)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
