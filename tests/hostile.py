"""A server on 127.0.0.1 that answers as its test says: endlessly, in drops, with redirects, with pages for people."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = b"x" * (1 << 16)


class Hostile(ThreadingHTTPServer):
    """Hands each request to `answer`; notes what came.

    Attributes:
        answer: Called with the handler, for every method.
        seen: Method, path and headers of each request.
        sent: Bytes of bodies so far.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hostile
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        with contextlib.suppress(OSError):
            self.server.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            self.server.answer(self)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any  # noqa: N815 - http.server's names

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    """Send a whole answer; underscores in a header's name are dashes."""
    handler.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def endless(status: int, limit: int = 1 << 31, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """Return an answer without a length, that goes on up to `limit` bytes: more than anybody should take."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(limit // len(PIECE)):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(PIECE), PIECE))

    return answer


@contextlib.contextmanager
def hostile(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[Hostile]:
    with Hostile(answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
