"""A metadata server as EC2 and Compute Engine have one, on 127.0.0.1, with their rules for tokens and headers."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import urllib.request
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REBALANCE = b'{"noticeTime": "2026-01-01T08:22:00Z"}'


class MetadataServer(ThreadingHTTPServer):
    """Answers as both clouds do; `interrupt` and `preempt` are what a test has in place of a cloud's decision.

    Attributes:
        asked: The paths that were asked for.
        tokens: Those that are good; clear it to let them expire.
        portal: Status, headers and body that a captive portal answers to everything, in place of a cloud.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.tokens: set[str] = set()
        self.action: bytes | None = None
        self.rebalance = False
        self.preempted = False
        self.portal: tuple[int, dict[str, str], bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def interrupt(self, seconds: float = 120.0) -> None:
        when = datetime.now(timezone.utc) + timedelta(seconds=seconds)
        self.action = json.dumps({"action": "terminate", "time": when.strftime("%Y-%m-%dT%H:%M:%SZ")}).encode()

    def preempt(self) -> None:
        self.preempted = True


class _Handler(BaseHTTPRequestHandler):
    server: MetadataServer

    def do_PUT(self):
        if self.server.portal is not None:
            return self._portal()
        if self.path != "/latest/api/token" or not self.headers.get("X-aws-ec2-metadata-token-ttl-seconds"):
            return self._answer(400)
        token = secrets.token_hex(8)
        self.server.tokens.add(token)
        return self._answer(200, token.encode())

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.server.portal is not None:
            return self._portal()
        if self.path.startswith("/latest/"):
            return self._ec2()
        if self.path.startswith("/computeMetadata/v1/instance/preempted"):
            if self.headers.get("Metadata-Flavor") != "Google":
                return self._answer(403)
            return self._answer(200, b"TRUE" if self.server.preempted else b"FALSE", flavor="Google")
        return self._answer(404)

    def do_POST(self):
        """What a test program says from another process: /interrupt or /preempt."""
        getattr(self.server, self.path.strip("/"))()
        self._answer(200)

    def _portal(self):
        status, headers, body = self.server.portal
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        return

    def _ec2(self):
        if self.headers.get("X-aws-ec2-metadata-token") not in self.server.tokens:
            return self._answer(401)
        found = {
            "/latest/meta-data/spot/instance-action": self.server.action,
            "/latest/meta-data/events/recommendations/rebalance": REBALANCE if self.server.rebalance else None,
        }.get(self.path)
        return self._answer(404) if found is None else self._answer(200, found)

    def _answer(self, status: int, body: bytes = b"", flavor: str | None = None):
        self.send_response(status)
        if flavor:
            self.send_header("Metadata-Flavor", flavor)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Keep quiet."""


@contextlib.contextmanager
def metadata_server():
    with MetadataServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def decide(url: str, what: str) -> None:
    """Let the server at `url` "interrupt" or "preempt"; from any process."""
    urllib.request.urlopen(urllib.request.Request(f"{url}/{what}", method="POST"), timeout=5).close()
