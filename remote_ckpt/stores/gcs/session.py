"""Requests to the JSON API on gcsfs's session, without the retries of gcsfs: our own policy decides."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import weakref
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

# Without this, gcsfs requests the kind of each bucket before the first operation. It does so over gRPC, which it
# imports for this alone, and waits up to a minute if there is no answer (emulators, credentials without permission).
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

import aiohttp
from fsspec.config import conf
from gcsfs.core import GCSFileSystem
from yarl import URL

from remote_ckpt.errors import BucketNotFoundError, InvalidRequestError, RemoteCkptError, TransientError
from remote_ckpt.location import Location
from remote_ckpt.stores import insecure_endpoint
from remote_ckpt.stores.gcs.errors import refused, unanswered
from remote_ckpt.stores.transfer import event_loop
from remote_ckpt.stores.transfer.answers import IDENTITY, Careful, told
from remote_ckpt.stores.transfer.download import Sink, pour
from remote_ckpt.stores.transfer.rate_limit import RateLimit
from remote_ckpt.stores.transfer.request_body import PartBody

T = TypeVar("T")

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
_CHUNK = 1 << 20


class GcsSession:
    """Requests for a run, from any thread (through `run`), with our errors.

    Attributes:
        bucket: The bucket's name.
        prefix: The run's prefix with a slash at its end, or empty.
    """

    def __init__(self, location: Location, storage_options: dict[str, Any]) -> None:
        """Take a run's location and gcsfs's own arguments, and look for credentials.

        Raises:
            StoreError: There are no credentials, or the options are wrong.
        """
        self._location = location
        self._options = {**conf.get("gs", {}), **conf.get("gcs", {}), **storage_options}
        self._watched: aiohttp.ClientSession | None = None
        self._fs = self._open()
        insecure_endpoint.warn_of(self.endpoint)
        self.bucket, key, _ = self._fs.split_path(self._fs._strip_protocol(location.root))
        self.prefix = f"{key.strip('/')}/" if key.strip("/") else ""

    @property
    def endpoint(self) -> str:
        """The URL of the server."""
        return str(self._fs._location)

    @property
    def credentials_method(self) -> str | None:
        """The way in which gcsfs found credentials; None if the user passed credentials."""
        method: str | None = self._fs.credentials.method
        return method

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of all fsspec filesystems."""
        try:
            loop: asyncio.AbstractEventLoop = self._fs.loop
        except RuntimeError as exc:  # gcsfs's own check
            raise InvalidRequestError(f"{self._location.name} was opened before a fork; open it in the child.") from exc
        return loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the event loop and wait for the result; call from any thread but the loop's own."""
        return event_loop.run(self.loop, work)

    def name(self, key: str) -> str:
        """Return a key's URL for messages."""
        return self._location.url(key) if key else self._location.name

    def object_path(self, key: str) -> str:
        """Return the path of an object in the JSON API."""
        return f"/storage/v1/b/{quote(self.bucket, safe='')}/o/{quote(self.prefix + key, safe='')}"

    @property
    def bucket_path(self) -> str:
        """The path of the bucket's objects in the JSON API."""
        return f"/storage/v1/b/{quote(self.bucket, safe='')}/o"

    async def call(
        self, method: str, path: str, doing: str, key: str, *, json_body: Any = None, **query: Any
    ) -> dict[str, Any]:
        """Make a request and return the answer's JSON.

        Raises:
            StoreError: The service refused, or did not answer; translated by `errors.refused` and `errors.unanswered`.
        """
        data = None if json_body is None else json.dumps(json_body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        async with self._request(method, path, doing, key, query, headers, data) as answer:
            return self._told(await answer.read() or b"{}", key)

    async def send(self, body: PartBody, content_type: str, doing: str, key: str, **query: Any) -> dict[str, Any]:
        """Insert an object in a single request; the name is in the multipart body already.

        Raises:
            StoreError: As for `call`.
        """
        path = f"/upload{self.bucket_path}"
        headers = {"Content-Type": content_type}
        query = {"uploadType": "multipart", **query}
        async with self._request("POST", path, doing, key, query, headers, body) as answer:
            return self._told(await answer.read(), key)

    async def download(
        self, doing: str, key: str, sink: Sink, *, pace: RateLimit, headers: dict[str, str], limit: int, **query: Any
    ) -> tuple[Any, int]:
        """Give an object's bytes to `sink`; return the answer's headers and the number of bytes.

        Raises:
            InvalidRequestError: There are more than `limit` bytes.
            StoreError: As for `call`; `sink` may have received some bytes.
        """
        path = f"/download{self.object_path(key)}"
        async with self._request("GET", path, doing, key, {"alt": "media", **query}, headers, None) as answer:
            if (answer.content_length or 0) > limit:
                raise InvalidRequestError(
                    f"Cannot {doing} {self.name(key)}: it has {answer.content_length} bytes, "
                    f"and at most {limit} are read at once."
                )
            return answer.headers, await pour(answer.content.iter_chunked(_CHUNK), sink, pace, limit)

    def _told(self, body: bytes, key: str) -> dict[str, Any]:
        """Return the fields of a successful answer.

        Raises:
            TransientError: The answer is not JSON, or has no fields; for example, a proxy's page.
        """
        try:
            fields = json.loads(body)
            contents = told({} if fields is None else fields, self.name(key))  # an emulator's answer to DELETE is null
        except (ValueError, RecursionError) as exc:
            raise TransientError(f"What was said of {self.name(key)} is not JSON ({type(exc).__name__}).") from exc
        if not isinstance(contents, dict):
            raise TransientError(f"What was said of {self.name(key)} holds no fields.")
        return contents

    def reconnect(self) -> None:
        """Make a new session and look for credentials again; requests under way end on the old session."""
        self._fs = self._open()

    def close(self) -> None:
        """Close the connections."""
        session = self._fs._session
        if session is not None:
            self.run(session.close())

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        doing: str,
        key: str,
        query: dict[str, Any],
        headers: dict[str, str],
        data: bytes | PartBody | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make a request and yield the answer after a success; also translate errors while the answer is read."""
        fs, changes = self._fs, method != "GET"
        try:
            session = await self._opened(fs)
            signed = await asyncio.to_thread(fs._get_headers, headers)  # may block: fetches a new token
            url = URL(f"{fs._location}{path}?{urlencode(fs._get_params(query))}", encoded=True)
            timeout = fs.requests_timeout or _TIMEOUT
            asked = Careful(session).request(method, url, headers={**signed, **IDENTITY}, data=data, timeout=timeout)
            async with await asked as answer:
                if answer.status >= 300:
                    of_bucket = path.removeprefix("/upload") == self.bucket_path
                    contents = await answer.read()
                    raise refused(answer.status, contents, doing, self.name(key), changes=changes, of_bucket=of_bucket)
                yield answer
        except RemoteCkptError:  # translated already: `refused` above, or an error of the caller's block or sink
            raise
        except Exception as exc:  # also from the caller's block, if the connection breaks while the body is read
            raise unanswered(exc, doing, self.name(key), changes=changes) from exc

    async def _opened(self, fs: GCSFileSystem) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession = await fs._set_session()
        if session is not self._watched:
            self._watched = session
            # At exit, finalizers run in reverse order: this runs before gcsfs's own, which is not thread-safe.
            weakref.finalize(self, _farewell, fs.loop, session)
        return session

    async def require_bucket(self) -> None:
        """Raise if the bucket is missing: the service answers the same 404 as for a missing object.

        Raises:
            BucketNotFoundError: The bucket is missing. After any other error this returns.
        """
        try:
            await self.call("GET", self.bucket_path, "reach", "", maxResults=1, prefix=self.prefix, fields="kind")
        except BucketNotFoundError:
            raise
        except RemoteCkptError:
            return  # the credentials may not list, for example; the caller has an error to raise already

    def _open(self) -> GCSFileSystem:
        try:
            return GCSFileSystem(
                **{
                    "use_listings_cache": False,
                    **self._options,
                    "skip_instance_cache": True,
                    "session_kwargs": {**(self._options.get("session_kwargs") or {}), "auto_decompress": False},
                },
            )
        except Exception as exc:
            raise unanswered(exc, "reach", self._location.name, changes=False) from exc


def _farewell(loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> None:
    """Close the connections after the `GcsSession` was garbage-collected, or at the interpreter's exit."""
    if session.closed or not loop.is_running():
        return
    closing = asyncio.run_coroutine_threadsafe(session.close(), loop)
    # The garbage collector may run this in the loop's own thread, which would then wait for itself.
    if not event_loop.is_running(loop):
        with suppress(TimeoutError, concurrent.futures.TimeoutError):
            closing.result(1.0)
