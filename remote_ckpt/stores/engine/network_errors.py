"""Requests that got no answer: what happened, and whether they may have been carried out all the same."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading

import aiohttp

from remote_ckpt.stores.engine.answers import NoStoreError
from remote_ckpt.urls import redact

FOREIGN = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
"""What aiohttp and the system raise when there is no answer."""


def innermost(error: BaseException) -> BaseException:
    """Return the error that the others wrap: botocore wraps aiohttp's, aiohttp the system's."""
    for _ in range(8):
        inner = getattr(error, "kwargs", {}).get("error") or error.__cause__
        if isinstance(error, aiohttp.ClientConnectorError) or not isinstance(inner, BaseException):
            break
        error = inner
    return error


def never_arrived(error: BaseException) -> bool:
    """Return whether the request certainly did not reach the service."""
    unreached = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, socket.gaierror, ConnectionRefusedError)
    return isinstance(innermost(error), unreached)


def is_not_trusted(error: BaseException) -> bool:
    """Return whether the server's certificate was refused, which trying again does not change."""
    return isinstance(innermost(error), (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError))


def no_store(error: BaseException) -> str | None:
    """Return why what answered is no store, if that is what happened."""
    cause = innermost(error)
    return str(cause) if isinstance(cause, NoStoreError) else None


def is_too_late(error: BaseException) -> bool:
    """Return whether the interpreter is shutting down: then names are no longer resolved, and trying again is vain."""
    return isinstance(innermost(error), RuntimeError) and not threading.main_thread().is_alive()


def describe(error: BaseException) -> str:
    """Return the innermost error in a few words, without secrets of a URL in it."""
    cause = innermost(error)
    return redact(f"{type(cause).__name__}: {cause}") if str(cause) else type(cause).__name__
