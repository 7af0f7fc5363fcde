"""Conditional writes on stores that have none: compare, then write, one thread of this process at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from remote_ckpt.errors import ObjectNotFoundError, PreconditionFailedError
from remote_ckpt.stores.base import Expect, ObjectStore, Version

_locks: dict[str, threading.RLock] = {}
_guard = threading.Lock()


def lock_of(place: str) -> threading.RLock:
    """Return this process's lock for a place, the same for every store object."""
    with _guard:
        return _locks.setdefault(place, threading.RLock())


@contextmanager
def compared(store: ObjectStore, place: str, key: str, expect: Version | Expect) -> Iterator[None]:
    """Hold the place's lock, after checking that `key` is as expected.

    Raises:
        PreconditionFailedError: It is not.
    """
    with lock_of(place):
        try:
            present: Version | None = store.stat(key).version
        except ObjectNotFoundError:
            present = None
        if present != (None if expect is Expect.ABSENT else expect):
            raise PreconditionFailedError(f"Cannot write {store.url}/{key}: someone else has changed it.")
        yield
