"""Trying what a store's conditional writes are worth: some servers accept the headers and ignore them.

What one request after the other cannot show is whether a server checks and writes in one step. moto does not, and yet
had exactly one winner in each of 600 races of four to eight writers, with bodies of ten bytes to one MiB; only on a
loaded machine it lost one increment of 400. A race in the probe would pass there as well, and make its "yes" look
proven: so there is none. Which of the servers for tests are atomic is written down, `testing.servers.MANY_WRITERS`.
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
"""Neither an object's ETag, nor a generation, which counts microseconds."""

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
    """Create an object twice; return whether the second time was refused, and the version then there.

    Raises:
        TransientError: It is not known what happened; probe again later.
    """
    try:
        version = write(b"1", Expect.ABSENT)
    except PreconditionFailedError as exc:  # aiohttp repeats a PUT whose answer was lost; nobody else knows this name
        raise TransientError(f"{exc} {_UNKNOWN}") from exc
    again = refused(lambda: write(b"2", Expect.ABSENT))
    return again is None, again or version


def try_compare_and_swap(write: Write, read: Read, version: Version) -> bool:
    """Overwrite the object with its right version, then with the stale one; return whether both went as they must.

    A refusal of the right version is believed only if the object has not changed: it may be owed to our own request,
    whose answer was lost and which was repeated below us. Believed, it would let this machine write unconditionally
    for a month, over other writers' commits.
    """
    try:
        current = write(b"3", version)
    except (PreconditionFailedError, InvalidRequestError):
        data, current = read()
        if data != b"3":
            return False
    return current != version and refused(lambda: write(b"4", version)) is None


def try_conditional_delete(delete: Callable[[Version], None], look: Callable[[], Version]) -> bool:
    """Delete an object with a wrong version, then with the right one; return whether both went as they must.

    The object is looked at each time: an answer that was lost, and the request repeated below us, is no refusal. Who
    may not delete at all never finds out, and need not.
    """
    version = look()
    for expected in (Version(_WRONG), version):
        with suppress(PreconditionFailedError, InvalidRequestError, AccessDeniedError):
            delete(expected)
        try:
            is_there = look() == version
        except ObjectNotFoundError:
            is_there = False
        if is_there is (expected == version):
            return False
    return True


def refused(attempt: Callable[[], Version]) -> Version | None:
    """Return None if the store refuses the precondition, else the version that the attempt wrote.

    Raises:
        TransientError: It is not known what happened; probe again later.
    """
    try:
        return attempt()
    except (PreconditionFailedError, InvalidRequestError):
        return None
    except TransientError as exc:
        raise TransientError(f"{exc} {_UNKNOWN}") from exc
