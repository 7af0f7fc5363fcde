"""Classify requests without an answer: the cause, and whether the service may have carried out the request."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading

import aiohttp

from remote_ckpt.stores.transfer.answers import NoStoreError
from remote_ckpt.urls import redact

FOREIGN = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
"""The exceptions of aiohttp and the system for a request without an answer."""


def innermost(error: BaseException) -> BaseException:
    """Return the innermost error: botocore wraps aiohttp's errors, aiohttp wraps the system's."""
    for _ in range(8):  # bounded, in case the causes form a circle
        inner = getattr(error, "kwargs", {}).get("error") or error.__cause__
        # A ClientConnectorError itself, and not the system's error inside, shows that no connection was made.
        if isinstance(error, aiohttp.ClientConnectorError) or not isinstance(inner, BaseException):
            break
        error = inner
    return error


def never_arrived(error: BaseException) -> bool:
    """Return whether the request certainly did not reach the service."""
    unreached = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, socket.gaierror, ConnectionRefusedError)
    return isinstance(innermost(error), unreached)


def is_not_trusted(error: BaseException) -> bool:
    """Return whether the server's certificate was refused; trying again does not help."""
    return isinstance(innermost(error), (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError))


def no_store(error: BaseException) -> str | None:
    """Return the reason why the answer is not from a store; None for any other error."""
    cause = innermost(error)
    return str(cause) if isinstance(cause, NoStoreError) else None


def is_too_late(error: BaseException) -> bool:
    """Return whether the interpreter is shutting down: names are then not resolved, and trying again cannot succeed."""
    return isinstance(innermost(error), RuntimeError) and not threading.main_thread().is_alive()


def describe(error: BaseException) -> str:
    """Return the class and text of the innermost error, without the secrets of URLs."""
    cause = innermost(error)
    return redact(f"{type(cause).__name__}: {cause}") if str(cause) else type(cause).__name__
