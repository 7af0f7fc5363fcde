"""Bound answers in bytes and in time, accept no redirects, and check fields.

The server may be hostile, or no store at all: a captive portal, a proxy's error page, an answer without an end.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from yarl import URL

from remote_ckpt.errors import TransientError

MOST = 16 << 20
"""The most bytes of an answer read as a whole; a page of a listing, a thousand names, has two million at most."""

MOST_OF_AN_ERROR = 64 << 10
"""The most bytes read of a refusal; the rest is ignored."""

ANSWER_TIMEOUT = 60.0
"""Seconds in all for a small object, a refusal, or the beginning of an answer, even if bytes keep trickling in."""

_LONG = 600.0  # seconds; S3 may take minutes to complete a large upload, and sends blanks during this time

IDENTITY = {"Accept-Encoding": "identity"}
"""Asks for uncompressed bytes: a limit on received bytes is then a limit on memory too."""

_LEADING = (301, 302, 303, 307, 308)
_PIECE = 1 << 16
_SLOWEST = 32 << 10  # bytes per second
_SMALL = 1 << 20


class NoStoreError(Exception):
    """An answer without an end, or a redirect: not from a store. Trying again does not help."""


class BoundedResponse(aiohttp.ClientResponse):
    """An answer of aiohttp with a bounded `read`: a refusal is cut at the limit, any other answer is an error."""

    async def read(self) -> bytes:
        """Return the whole body; of a refusal the first `MOST_OF_AN_ERROR` bytes.

        Raises:
            NoStoreError: The answer is a success with more than `MOST` bytes.
            asyncio.TimeoutError: Reading took more than `ANSWER_TIMEOUT` seconds, or ten minutes for a success.
        """
        if self._body is None:
            try:
                self._body = await asyncio.wait_for(self._bounded(), ANSWER_TIMEOUT if self.status >= 300 else _LONG)
            except BaseException:
                self.close()  # the rest of the body is unread: the connection must not go back to the pool
                raise
        return self._body

    async def _bounded(self) -> bytes:
        refused = self.status >= 300
        limit, pieces, size = MOST_OF_AN_ERROR if refused else MOST, [], 0
        while piece := await self.content.read(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                self.close()  # as above: the rest stays unread
                if refused:
                    break
                raise NoStoreError(f"the answer has more than {limit} bytes")
        return b"".join(pieces)[:limit]


class Careful:
    """An aiohttp session without redirects, and with a time limit for small requests."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        """Take a session; all later answers of this session are bounded."""
        session._response_class = BoundedResponse
        self._session = session

    async def request(self, method: str, url: Any, *, data: Any = None, **arguments: Any) -> aiohttp.ClientResponse:
        """Make a request and return the answer, with the body still unread.

        Raises:
            NoStoreError: The answer is a redirect, and not to another region of AWS.
            asyncio.TimeoutError: A request without a body, or with at most a MiB, had no answer in `ANSWER_TIMEOUT`
                seconds.
        """
        asked = self._session.request(method, url, data=data, allow_redirects=False, **arguments)
        small = data is None or (isinstance(data, bytes | bytearray) and len(data) <= _SMALL)
        # Sending a large body may take longer: for uploads `watch` gives up when no byte moves.
        answer = await asyncio.wait_for(asked, ANSWER_TIMEOUT) if small else await asked
        # botocore handles redirects to another region of AWS itself, and signs the request again.
        if answer.status in _LEADING and "x-amz-bucket-region" not in answer.headers:
            answer.close()
            raise NoStoreError(_led(answer))
        return answer

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of the session."""
        return getattr(self._session, name)


def time_for(size: int) -> float:
    """Return the seconds allowed for reading a small object of `size` bytes."""
    return ANSWER_TIMEOUT + size / _SLOWEST


class FieldMissingError(TransientError, KeyError):
    """A required field is missing in an answer."""


class Told(dict[str, Any]):
    """The fields of an answer; a missing field raises `FieldMissingError`.

    The answer was then damaged on its way, or came from something other than the store.
    """

    where = ""

    def __missing__(self, name: str) -> Any:
        raise FieldMissingError(f"What was said of {self.where} was damaged on its way (no {name}).")


def told(answer: Any, where: str) -> Any:
    """Wrap the dictionaries in an answer, at every depth, as `Told`; return any other value unchanged."""
    if isinstance(answer, dict):
        made = Told({name: told(value, where) for name, value in answer.items()})
        made.where = where
        return made
    return [told(one, where) for one in answer] if isinstance(answer, list) else answer


def _led(answer: aiohttp.ClientResponse) -> str:
    """Return a message about a redirect, without the target's path and query: these may contain secrets."""
    try:
        where = str(URL(answer.headers.get("Location", "")).origin())
    except ValueError:  # a relative or malformed Location
        where = "another name"
    return f"the service redirects to {where} ({answer.status}), which was not followed"
