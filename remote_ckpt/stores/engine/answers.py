"""Answers as they come: bounded in bytes and in time, never unpacked, and from nowhere but the place that was asked.

Whoever answers may be hostile, or no store at all: a captive portal, a proxy's error page, a server that never ends.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from yarl import URL

from remote_ckpt.errors import TransientError

MOST = 16 << 20
"""Bytes of an answer that is read as a whole; a thousand names of a listing take two million at most."""

MOST_OF_AN_ERROR = 64 << 10
"""Bytes of a refusal; what comes after them tells nothing more."""

PATIENCE = 60.0
"""Seconds that a small object, a refusal, or the beginning of an answer may take, however the bytes trickle."""

_LONG = 600.0  # seconds; S3 completes a large upload for minutes, and sends blanks meanwhile

IDENTITY = {"Accept-Encoding": "identity"}
"""Asks for bytes as they are: what is counted against a limit is then what is kept in memory."""

_LEADING = (301, 302, 303, 307, 308)
_PIECE = 1 << 16
_SLOWEST = 32 << 10  # bytes per second
_SMALL = 1 << 20


class NoStoreError(Exception):
    """An answer is none of a store: it has no end, or leads somewhere else. Trying again does not change that."""


class BoundedResponse(aiohttp.ClientResponse):
    """aiohttp's answer, whose `read` ends: of a refusal with what came so far, else with an error."""

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            NoStoreError: It has more than `MOST` bytes.
            asyncio.TimeoutError: It has taken too long.
        """
        if self._body is None:
            try:
                self._body = await asyncio.wait_for(self._bounded(), PATIENCE if self.status >= 300 else _LONG)
            except BaseException:
                self.close()
                raise
        return self._body

    async def _bounded(self) -> bytes:
        refused = self.status >= 300
        limit, pieces, size = MOST_OF_AN_ERROR if refused else MOST, [], 0
        while piece := await self.content.read(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                self.close()
                if refused:
                    break
                raise NoStoreError(f"the answer has more than {limit} bytes")
        return b"".join(pieces)[:limit]


class Careful:
    """An aiohttp session whose requests follow no redirect, and whose small ones are answered in time or not at all."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        """Take a session; its answers are bounded from now on."""
        session._response_class = BoundedResponse
        self._session = session

    async def request(self, method: str, url: Any, *, data: Any = None, **arguments: Any) -> aiohttp.ClientResponse:
        """Make a request and return its answer, whose body is yet to be read.

        Raises:
            NoStoreError: It leads somewhere else, and not to another region of AWS.
        """
        asked = self._session.request(method, url, data=data, allow_redirects=False, **arguments)
        small = data is None or (isinstance(data, bytes | bytearray) and len(data) <= _SMALL)
        answer = await asyncio.wait_for(asked, PATIENCE) if small else await asked
        if answer.status in _LEADING and "x-amz-bucket-region" not in answer.headers:
            answer.close()
            raise NoStoreError(_led(answer))
        return answer

    def __getattr__(self, name: str) -> Any:
        """Return what else the session has."""
        return getattr(self._session, name)


def time_for(size: int) -> float:
    """Return how many seconds a small object of `size` bytes may take."""
    return PATIENCE + size / _SLOWEST


class FieldMissingError(TransientError, KeyError):
    """An answer lacks a field that each such answer has."""


class Told(dict[str, Any]):
    """An answer's fields; one that is missing was lost on its way, or somebody else answers."""

    where = ""

    def __missing__(self, name: str) -> Any:
        raise FieldMissingError(f"What was said of {self.where} was damaged on its way (no {name}).")


def told(answer: Any, where: str) -> Any:
    """Return an answer, and whatever is in it, as `Told`; what is no answer at all is as one without a field."""
    if isinstance(answer, dict):
        made = Told({name: told(value, where) for name, value in answer.items()})
        made.where = where
        return made
    return [told(one, where) for one in answer] if isinstance(answer, list) else answer


def _led(answer: aiohttp.ClientResponse) -> str:
    """Return what to report of an answer that leads somewhere else: without path and query, which may be secret."""
    try:
        where = str(URL(answer.headers.get("Location", "")).origin())
    except ValueError:
        where = "another name"
    return f"the service redirects to {where} ({answer.status}), which was not followed"
