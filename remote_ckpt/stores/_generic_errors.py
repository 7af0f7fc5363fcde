"""Errors of filesystems that have no adapter of their own, in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from remote_ckpt.errors import (
    AccessDeniedError,
    InvalidRequestError,
    ObjectNotFoundError,
    PreconditionFailedError,
    RemoteCkptError,
    StoreError,
    TransientError,
)
from remote_ckpt.stores import _os_errors
from remote_ckpt.urls import redact

_BY_STATUS: dict[int, type[StoreError]] = {
    400: InvalidRequestError,
    401: AccessDeniedError,
    403: AccessDeniedError,
    404: ObjectNotFoundError,
    409: PreconditionFailedError,
    412: PreconditionFailedError,
}


def translate(error: Exception, doing: str, url: str) -> StoreError:
    """Return our error for one of fsspec's, an adapter's or a client library's."""
    error = _behind(error)
    head = f"Cannot {doing} {url}: "
    reason = redact(f"{type(error).__name__}: {error}")
    status = getattr(error, "status_code", None) or getattr(error, "status", None)
    if isinstance(status, int) and status in _BY_STATUS:
        return _BY_STATUS[status](f"{head}HTTP status {status} ({reason}).")
    if isinstance(error, OSError):
        return _os_errors.translate(error, doing, url)
    if isinstance(error, (NotImplementedError, ValueError, TypeError, ImportError)):
        return InvalidRequestError(f"{head}{reason}. Check the URL and `storage_options`.")
    return TransientError(f"{head}{reason}.")


def _behind(error: Exception) -> Exception:
    """Return what really went wrong: fsspec's HTTP calls everything "not found", also that there is no network."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return error
    status = getattr(cause, "status", None)
    refused = isinstance(status, int) and status != 404
    unreachable = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError) and status is None
    return cause if refused or unreachable else error


@contextmanager
def translated(doing: str, url: str) -> Iterator[None]:
    """Turn whatever is raised inside into ours; ours pass unchanged, and so does what is not an `Exception`."""
    try:
        yield
    except RemoteCkptError:
        raise
    except Exception as exc:
        raise translate(exc, doing, url) from exc
