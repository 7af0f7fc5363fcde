"""Translation of the operating system's errors, also when an fsspec filesystem raises them, into our errors."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from remote_ckpt.errors import (
    AccessDeniedError,
    InvalidRequestError,
    ObjectNotFoundError,
    PreconditionFailedError,
    RemoteCkptError,
    StoreError,
    StoreFullError,
    TransientError,
)

_MISSING = {errno.ENOENT, errno.ENOTDIR}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_IMPOSSIBLE = {errno.ENAMETOOLONG, errno.EFBIG, errno.EINVAL, errno.EISDIR, errno.ENOSYS, errno.ENOTSUP}


def translate(error: OSError, doing: str, url: str) -> StoreError:
    """Return our error for an `OSError`.

    Args:
        error: The operating system's error. Some filesystems raise subclasses without an `errno`.
        doing: A verb for the message, such as "write".
        url: The object's URL for the message.
    """
    head = f"Cannot {doing} {url}: "
    reason = error.strerror or str(error) or type(error).__name__
    code = error.errno
    if code == errno.ELOOP:
        return InvalidRequestError(f"{head}it is a symbolic link, which a run must not contain.")
    if code in _MISSING or (code is None and isinstance(error, FileNotFoundError)):
        return ObjectNotFoundError(f"{head}it does not exist.")
    if code in _FORBIDDEN or isinstance(error, PermissionError):
        return AccessDeniedError(f"{head}{reason}. Check the permissions of the folder and the owner of this process.")
    if code == errno.EEXIST or isinstance(error, FileExistsError):
        return PreconditionFailedError(f"{head}it exists already.")
    if code in _FULL:
        return StoreFullError(f"{head}{reason}. Free some space or raise the quota, then try again.")
    if code in _IMPOSSIBLE:
        return InvalidRequestError(f"{head}{reason}.")
    return TransientError(f"{head}{reason}.")


@contextmanager
def translated(doing: str, url: str) -> Iterator[None]:
    """Raise our error instead of an `OSError` from the block; our own errors and all others pass unchanged."""
    try:
        yield
    except RemoteCkptError:  # some of ours are an `OSError` too (`ObjectNotFoundError`): do not translate them twice
        raise
    except OSError as exc:
        raise translate(exc, doing, url) from exc
