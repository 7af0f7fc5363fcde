"""Conditional writes for stores without them: compare, then write, under a lock of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from remote_ckpt.errors import ObjectNotFoundError, PreconditionFailedError
from remote_ckpt.stores.base import Expect, ObjectStore, Version

_locks: dict[str, threading.RLock] = {}
_guard = threading.Lock()


def lock_of(place: str) -> threading.RLock:
    """Return this process's lock for a place; all store objects for the place share the lock.

    Other processes are not locked out.
    """
    with _guard:  # two threads may open stores on the place at the same time
        return _locks.setdefault(place, threading.RLock())


@contextmanager
def compared(store: ObjectStore, place: str, key: str, expect: Version | Expect) -> Iterator[None]:
    """Take the place's lock, compare the version of `key`, and hold the lock during the block: write there.

    Raises:
        PreconditionFailedError: The object is not as expected; the block does not run.
    """
    # Without the lock two threads could both find the same version, and the second write would undo the first.
    with lock_of(place):
        try:
            present: Version | None = store.stat(key).version
        except ObjectNotFoundError:
            present = None
        if present != (None if expect is Expect.ABSENT else expect):
            raise PreconditionFailedError(f"Cannot write {store.url}/{key}: someone else has changed it.")
        yield
