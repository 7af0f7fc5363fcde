"""Errors of the operating system, and of filesystems that speak through them, in our words."""

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
    """Return our error for one of the operating system's; `doing` is a verb such as "write"."""
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
    """Turn an `OSError` raised inside into ours; ours pass unchanged."""
    try:
        yield
    except RemoteCkptError:
        raise
    except OSError as exc:
        raise translate(exc, doing, url) from exc
