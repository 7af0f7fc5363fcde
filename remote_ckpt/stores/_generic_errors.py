"""Translation of the errors of any fsspec filesystem into our errors."""

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
    """Return our error for an error of fsspec, of a filesystem or of a client library.

    Args:
        error: The foreign error.
        doing: A verb for the message, such as "write".
        url: The object's URL for the message.
    """
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
    """Return the true cause of a `FileNotFoundError` from fsspec's HTTP filesystem, else the error itself.

    `HTTPFileSystem._info` raises `FileNotFoundError` for every failure, also for 403 and for a network that is down.
    Read as "not found", these would pass for an empty run.
    """
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return error
    status = getattr(cause, "status", None)
    refused = isinstance(status, int) and status != 404
    unreachable = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError) and status is None
    return cause if refused or unreachable else error


@contextmanager
def translated(doing: str, url: str) -> Iterator[None]:
    """Raise our error instead of a foreign `Exception` from the block; our own, and `BaseException`, pass unchanged."""
    try:
        yield
    except RemoteCkptError:
        raise
    except Exception as exc:
        raise translate(exc, doing, url) from exc
