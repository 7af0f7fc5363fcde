"""s3fs's session, set up so that our own policy decides about retries, checksums and connections."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import fsspec
import s3fs

from remote_ckpt.errors import InvalidRequestError, ObjectNotFoundError, RemoteCkptError
from remote_ckpt.location import Location
from remote_ckpt.stores import identity, plain_http
from remote_ckpt.stores.engine import bridge
from remote_ckpt.stores.engine.answers import Careful, told
from remote_ckpt.stores.owners import metadata_of
from remote_ckpt.stores.s3.errors import translate

T = TypeVar("T")

_CONFIG: dict[str, Any] = {
    # One policy retries, ours: with the defaults one broken request becomes 50.
    "retries": {"total_max_attempts": 1, "mode": "standard"},
    "max_pool_connections": 64,
    "connect_timeout": 10,
    "read_timeout": 60,
    # We send a crc32c with each part. Hashing the payload again for the signature takes as long as sending it.
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
    "s3": {"payload_signing_enabled": False},
}


class S3Session:
    """Calls of botocore's S3 client for one run, from any thread, with our errors.

    Attributes:
        bucket: The bucket's name, or an access point.
        prefix: The run's prefix with a slash at its end, or empty.
        crc32c: Whether the service knows crc32c, as far as is known; `objects.send` finds out.
        uneven_parts: Whether an object's parts may differ in size, as far as is known.
        round_trip: Seconds of the quickest look at an object so far.
        whole_crc32c: Whether what it calls the whole object's crc32c is that (moto's is not, for several parts).
    """

    def __init__(self, location: Location, storage_options: dict[str, Any]) -> None:
        """Take a run's location and s3fs's own arguments; nothing is sent."""
        self._location = location
        self._options = _merge_options(storage_options)
        self._server: str | None = None
        self._prepared: Any = None
        self._fs = self._open()
        path = self._fs._strip_protocol(location.root)
        self.bucket, key, _ = self._fs.split_path(path)
        self.crc32c = True
        self.uneven_parts = True
        self.whole_crc32c = True
        self.round_trip = math.inf
        self.prefix = f"{key.strip('/')}/" if key.strip("/") else ""

    @property
    def server(self) -> str:
        """Where requests go, as the client resolved it from options, environment and profile; makes no request.

        Raises:
            StoreError: The client cannot be made: no such profile, say.
        """
        if self._server is None:
            client = self.run(self._client("reach", ""))
            self._server = identity.of_s3(client.meta.endpoint_url, client.meta.partition)
        return self._server

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that calls this session, from a thread of the caller's."""
        return bridge.run(self.loop, work)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of all fsspec filesystems."""
        try:
            loop: asyncio.AbstractEventLoop = self._fs.loop
        except RuntimeError as exc:  # s3fs's own check
            raise InvalidRequestError(f"{self._location.name} was opened before a fork; open it in the child.") from exc
        return loop

    async def call(self, method: str, doing: str, key: str, **arguments: Any) -> dict[str, Any]:
        """Make one request about `key`; `s3_additional_kwargs` that the method knows come with it."""
        if key:
            arguments["Key"] = self.prefix + key
        with_bucket = {"Bucket": self.bucket, **arguments}
        fs, begun = self._fs, time.monotonic()
        try:
            await self._client(doing, key)
            answer: dict[str, Any] = await fs._call_s3(method, **with_bucket)
            self._note_time(method, begun)
        except RemoteCkptError:
            raise
        except Exception as exc:
            error = translate(exc, method, doing, self.name(key))
            if isinstance(error, ObjectNotFoundError):  # an answer like any other
                self._note_time(method, begun)
            raise error from exc
        fields: dict[str, Any] = told(answer, self.name(key))
        return fields

    async def _client(self, doing: str, key: str) -> Any:
        """Return botocore's client, made on first use; credentials are looked for then."""
        try:
            client = await self._fs.set_session()
        except Exception as exc:
            raise translate(exc, "open", doing, self.name(key)) from exc
        if client is not self._prepared:
            http = client._endpoint.http_session
            _expect_nothing(client)
            _be_careful(http)
            plain_http.warn_of(client.meta.endpoint_url, verified=getattr(http, "_verify", True) is not False)
            self._prepared = client
        return client

    def _note_time(self, method: str, begun: float) -> None:
        if method == "head_object":
            self.round_trip = min(self.round_trip, time.monotonic() - begun)

    def owned_by(self, owner: str | None) -> dict[str, Any]:
        """Return the argument that gives an object its owner, beside the metadata that the user gives to all."""
        if owner is None:
            return {}
        given = (self._options.get("s3_additional_kwargs") or {}).get("Metadata") or {}
        return {"Metadata": {**given, **metadata_of(owner)}}

    def name(self, key: str) -> str:
        """Return a key's URL for messages."""
        return self._location.url(key) if key else self._location.name

    def reconnect(self) -> None:
        """Start afresh: credentials are looked for again. Requests under way end on the old session."""
        self._fs, self._server = self._open(), None

    def close(self) -> None:
        """Close the connections."""
        client = self._fs._s3
        if client is not None:
            self.run(client.close())

    def _open(self) -> s3fs.S3FileSystem:
        try:
            fs = s3fs.S3FileSystem(**self._options)
        except Exception as exc:
            raise translate(exc, "open", "reach", self._location.name) from exc
        fs.retries = 1
        return fs


def _merge_options(options: dict[str, Any]) -> dict[str, Any]:
    """Put the user's arguments over fsspec's configuration, and both over our settings."""
    given = {**fsspec.config.conf.get("s3", {}), **options}
    config = dict(_CONFIG)
    for name, value in (given.pop("config_kwargs", None) or {}).items():
        config[name] = {**config[name], **value} if name == "s3" and isinstance(value, dict) else value
    return {"use_listings_cache": False, **given, "config_kwargs": config, "skip_instance_cache": True}


def _be_careful(http: Any) -> None:
    """Follow no redirect and read no endless answer.

    aiohttp follows redirects to any host, with the session's token and a PUT's body. What AWS answers for a bucket of
    another region, botocore understands by itself, and signs anew.
    """
    given = getattr(http, "_get_session", None)
    if given is None or getattr(given, "is_careful", False):
        return

    async def careful(proxy_url: str | None) -> Careful:
        return Careful(await given(proxy_url))

    careful.is_careful = True  # type: ignore[attr-defined]
    http._get_session = careful


def _expect_nothing(client: Any) -> None:
    """Leave out botocore's "Expect: 100-continue", which costs a round trip for each part."""

    def without_expect(request: Any, **_: Any) -> None:
        request.headers.pop("Expect", None)

    client.meta.events.register("before-send.s3", without_expect, unique_id="remote_ckpt-without-expect")
