"""Tests of a store's conditional requests: some servers accept the headers and ignore them.

The requests are sent one after the other. Such a test cannot show whether a server checks and writes in one step. moto
does not, and yet had exactly one winner in each of 600 races of four to eight writers, with bodies of ten bytes to one
MiB; only on a loaded machine moto lost one increment of 400. A race in the probe would also succeed on moto, and its
result would look like a proof: so the probe has no race. `testing.servers.MANY_WRITERS` lists the test servers that
are atomic.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from remote_ckpt.errors import (
    AccessDeniedError,
    InvalidRequestError,
    ObjectNotFoundError,
    PreconditionFailedError,
    TransientError,
)
from remote_ckpt.stores.base import Expect, Version

Write = Callable[[bytes, Version | Expect], Version]
Read = Callable[[], tuple[bytes, Version]]

_WRONG = "1" * 16
"""A version that no object has: neither an ETag, nor a generation (generations count microseconds)."""

_UNKNOWN = "What this store can do is not known yet."

NO_CREATE_ONLY = (
    "This server overwrites objects that a request asks it to create only: two writers can destroy each other's "
    "checkpoints. Let only one process write to a run."
)
NO_COMPARE_AND_SWAP = (
    "This server ignores or refuses 'write only if unchanged': updates of two writers can be lost. "
    "Let only one process write to a run."
)
NO_CREATE_ONLY_UPLOAD = (
    "This server honours 'create only' for small objects but not for those uploaded in parts: "
    "names are looked up before each upload instead."
)
NO_RANGE_COPY = "This server cannot copy ranges: unchanged parts of a checkpoint are sent again."


def try_create_only(write: Write) -> tuple[bool, Version]:
    """Create an object twice; return whether the store refused the second time, and the object's version afterwards.

    Raises:
        TransientError: The service failed, an answer was lost, or the first attempt was refused. Nothing is proven;
            probe again later.
    """
    try:
        version = write(b"1", Expect.ABSENT)
    except PreconditionFailedError as exc:  # our own first request: aiohttp repeats a PUT if its answer is lost
        raise TransientError(f"{exc} {_UNKNOWN}") from exc
    again = refused(lambda: write(b"2", Expect.ABSENT))
    return again is None, again or version


def try_compare_and_swap(write: Write, read: Read, version: Version) -> bool:
    """Overwrite the object with the right, then with the stale version; return whether only the first succeeded.

    A refusal of the right version counts only if the object has not changed. Else the refused request was a repetition
    by the HTTP client of our own request, which had succeeded and whose answer was lost. If such a refusal counted,
    this machine would write unconditionally for a month (the lifetime in `probe_cache`), over other writers' commits.
    """
    try:
        current = write(b"3", version)
    except (PreconditionFailedError, InvalidRequestError):  # a true refusal, or the repetition of a lost answer
        data, current = read()
        if data != b"3":
            return False
    return current != version and refused(lambda: write(b"4", version)) is None


def try_conditional_delete(delete: Callable[[Version], None], look: Callable[[], Version]) -> bool:
    """Delete an object with a wrong version, then with the right version; return whether only the second succeeded.

    The result depends on the object, read after each request, and not on the answer: the HTTP client may repeat a
    request after a lost answer, and the repetition is answered differently. Without the permission to delete the result
    is False and does not matter: no deletion succeeds there.
    """
    version = look()
    for expected in (Version(_WRONG), version):
        # Whatever the answer, the object shows whether the deletion happened.
        with suppress(PreconditionFailedError, InvalidRequestError, AccessDeniedError):
            delete(expected)
        try:
            is_there = look() == version
        except ObjectNotFoundError:
            is_there = False
        if is_there is (expected == version):  # deleted with the wrong version, or kept with the right one
            return False
    return True


def refused(attempt: Callable[[], Version]) -> Version | None:
    """Return None if the store refuses the precondition, else the version written by `attempt`.

    Raises:
        TransientError: The service failed, or an answer was lost. Nothing is proven; probe again later.
    """
    try:
        return attempt()
    except (PreconditionFailedError, InvalidRequestError):  # InvalidRequestError: the server rejects the header
        return None
    except TransientError as exc:
        raise TransientError(f"{exc} {_UNKNOWN}") from exc
