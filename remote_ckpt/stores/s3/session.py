"""A session of s3fs with our own settings for retries, checksums and connections."""

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
from remote_ckpt.stores import identity, insecure_endpoint
from remote_ckpt.stores.owners import metadata_of
from remote_ckpt.stores.s3.errors import translate
from remote_ckpt.stores.transfer import event_loop
from remote_ckpt.stores.transfer.answers import Careful, told

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
    """Calls of botocore's S3 client for a run, from any thread (through `run`), with our errors.

    Attributes:
        bucket: The bucket's name, or an access point.
        prefix: The run's prefix with a slash at its end, or empty.
        crc32c: Whether the service supports crc32c; True until `objects.send` or `uploads.begin` finds the opposite.
        uneven_parts: Whether an object's parts may differ in size; True until a server refuses them.
        round_trip: Seconds of the quickest HEAD request so far; infinite before the first.
        whole_crc32c: Whether the crc32c that the service reports for a whole object is right (moto's is wrong after
            several parts); True until the opposite is found.
    """

    def __init__(self, location: Location, storage_options: dict[str, Any]) -> None:
        """Take a run's location and s3fs's own arguments; send nothing."""
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
        """The endpoint from options, environment and profile, as the client resolved them; no request to the store.

        Raises:
            StoreError: The client cannot be made; for example, the profile does not exist.
        """
        if self._server is None:
            client = self.run(self._client("reach", ""))
            self._server = identity.of_s3(client.meta.endpoint_url, client.meta.partition)
        return self._server

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the event loop and wait for the result; call from any thread but the loop's own."""
        return event_loop.run(self.loop, work)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of all fsspec filesystems."""
        try:
            loop: asyncio.AbstractEventLoop = self._fs.loop
        except RuntimeError as exc:  # s3fs's own check
            raise InvalidRequestError(f"{self._location.name} was opened before a fork; open it in the child.") from exc
        return loop

    async def call(self, method: str, doing: str, key: str, **arguments: Any) -> dict[str, Any]:
        """Make a request about `key`, with the user's `s3_additional_kwargs` where the method accepts them.

        Args:
            method: Botocore's name of the call.
            doing: A verb, for messages.
            key: Relative to the run; empty for a request about the bucket.
            arguments: Of the method.

        Raises:
            StoreError: The service refused, or did not answer; translated by `errors.translate`.
        """
        if key:
            arguments["Key"] = self.prefix + key
        with_bucket = {"Bucket": self.bucket, **arguments}
        fs, begun = self._fs, time.monotonic()
        try:
            await self._client(doing, key)
            answer: dict[str, Any] = await fs._call_s3(method, **with_bucket)
            self._note_time(method, begun)
        except RemoteCkptError:  # translated already, by `_client`
            raise
        except Exception as exc:
            error = translate(exc, method, doing, self.name(key))
            if isinstance(error, ObjectNotFoundError):  # a complete answer, so its time counts as well
                self._note_time(method, begun)
            raise error from exc
        fields: dict[str, Any] = told(answer, self.name(key))
        return fields

    async def _client(self, doing: str, key: str) -> Any:
        """Return botocore's client; make the client and look for credentials on first use."""
        try:
            client = await self._fs.set_session()
        except Exception as exc:
            raise translate(exc, "open", doing, self.name(key)) from exc
        if client is not self._prepared:  # a new client, for example after `reconnect`
            http = client._endpoint.http_session
            _expect_nothing(client)
            _be_careful(http)
            insecure_endpoint.warn_of(client.meta.endpoint_url, verified=getattr(http, "_verify", True) is not False)
            self._prepared = client
        return client

    def _note_time(self, method: str, begun: float) -> None:
        if method == "head_object":
            self.round_trip = min(self.round_trip, time.monotonic() - begun)

    def owned_by(self, owner: str | None) -> dict[str, Any]:
        """Return the argument for an object's owner, together with the user's own metadata for all objects."""
        if owner is None:
            return {}
        given = (self._options.get("s3_additional_kwargs") or {}).get("Metadata") or {}
        return {"Metadata": {**given, **metadata_of(owner)}}

    def name(self, key: str) -> str:
        """Return a key's URL for messages."""
        return self._location.url(key) if key else self._location.name

    def reconnect(self) -> None:
        """Make a new session and look for credentials again; requests under way end on the old session."""
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
        fs.retries = 1  # s3fs would repeat each request on its own; our policy decides
        return fs


def _merge_options(options: dict[str, Any]) -> dict[str, Any]:
    """Merge settings: the user's arguments win over fsspec's configuration, and both win over ours."""
    given = {**fsspec.config.conf.get("s3", {}), **options}
    config = dict(_CONFIG)
    for name, value in (given.pop("config_kwargs", None) or {}).items():
        config[name] = {**config[name], **value} if name == "s3" and isinstance(value, dict) else value
    return {"use_listings_cache": False, **given, "config_kwargs": config, "skip_instance_cache": True}


def _be_careful(http: Any) -> None:
    """Make the client follow no redirect and read no endless answer.

    aiohttp follows redirects to any host, with the session's token and a PUT's body. The redirect that AWS sends for
    a bucket in another region is handled by botocore itself, with a new signature.
    """
    given = getattr(http, "_get_session", None)
    if given is None or getattr(given, "is_careful", False):
        return

    async def careful(proxy_url: str | None) -> Careful:
        return Careful(await given(proxy_url))

    careful.is_careful = True  # type: ignore[attr-defined]
    http._get_session = careful


def _expect_nothing(client: Any) -> None:
    """Remove botocore's "Expect: 100-continue" from requests: the header costs a round trip for each part."""

    def without_expect(request: Any, **_: Any) -> None:
        request.headers.pop("Expect", None)

    client.meta.events.register("before-send.s3", without_expect, unique_id="remote_ckpt-without-expect")
