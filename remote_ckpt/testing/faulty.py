"""Stores that misbehave on purpose, around a real one.

::

    store = FaultyStore(real)
    store.plan = on("write", LoseAnswer(), times=1)     # the next write is done, and its answer is lost

A fault is a small callable around one call of one verb; a plan picks the calls that go wrong. Both are plain functions,
so a test writes its own where these do not do. What a caller sees is an error of our tree, as from a real adapter:
put `Retrying` around a `FaultyStore`, as `open_store` does around an adapter, to test what a user would see.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from remote_ckpt.errors import (
    AccessDeniedError,
    CredentialsExpiredError,
    ObjectNotFoundError,
    OutcomeUnknownError,
    StoreError,
    TransientError,
)
from remote_ckpt.stores.base import (
    Capabilities,
    DeltaBase,
    Digests,
    Expect,
    Journal,
    Landing,
    ObjectInfo,
    ObjectStore,
    Progress,
    TransferReport,
    Version,
)

T = TypeVar("T")

VERBS = ("probe", "stat", "read", "write", "upload", "fetch", "copy", "delete", "scan", "sweep_uploads")


@dataclass(frozen=True)
class Call:
    """One call of a verb.

    Attributes:
        verb: As in `VERBS`.
        key: What it is about; the target of a copy, the prefix of a scan, "" for the whole run.
        number: Counts from 1 all calls of the store.
        earlier: What an earlier call of this verb for this key returned; None if there was none.
        target: The local file of a fetch.
    """

    verb: str
    key: str
    number: int
    earlier: Any = None
    target: Path | None = None


Fault = Callable[[Call, Callable[[], Any]], Any]
"""Called in place of the verb, with the call and with what would really do it."""

FaultPlan = Callable[[Call], Fault | None]
"""Says what goes wrong with a call; None: nothing."""


@dataclass(frozen=True)
class Refuse:
    """The store says no, and nothing has happened."""

    error: Callable[[str], StoreError]

    def __call__(self, call: Call, act: Callable[[], Any]) -> Any:  # noqa: ARG002 - it is not done
        """Raise instead."""
        raise self.error(f"Cannot {call.verb} {call.key!r}: refused on purpose.")


@dataclass(frozen=True)
class LoseAnswer:
    """It is done, and nobody hears of it. A write's caller is told that the outcome is unknown, as by every adapter."""

    error: Callable[[str], StoreError] | None = None

    def __call__(self, call: Call, act: Callable[[], Any]) -> Any:
        """Do it, then raise; what it raises by itself (a conflict, say) is lost as well."""
        try:
            act()
        except StoreError as exc:
            raise self._lost(call) from exc
        raise self._lost(call)

    def _lost(self, call: Call) -> StoreError:
        error = self.error or (OutcomeUnknownError if call.verb == "write" else TransientError)
        return error(f"The answer to {call.verb} {call.key!r} was lost on purpose.")


@dataclass(frozen=True)
class Slow:
    """It takes `seconds` longer, then goes well."""

    seconds: float
    sleep: Callable[[float], None] = time.sleep

    def __call__(self, call: Call, act: Callable[[], Any]) -> Any:  # noqa: ARG002 - all calls alike
        """Wait first."""
        self.sleep(self.seconds)
        return act()


@dataclass(frozen=True)
class Hang:
    """No answer for `seconds`, then a timeout; `done` says whether it was done meanwhile."""

    seconds: float
    done: bool = False
    sleep: Callable[[float], None] = time.sleep

    def __call__(self, call: Call, act: Callable[[], Any]) -> Any:
        """Wait, then raise."""
        self.sleep(self.seconds)
        if self.done:
            return LoseAnswer()(call, act)
        error = OutcomeUnknownError if call.verb == "write" else TransientError
        raise error(f"No answer to {call.verb} {call.key!r} within {self.seconds} s, on purpose.")


@dataclass(frozen=True)
class Truncate:
    """What is read breaks off in the middle, and no error says so. Other verbs are done as they are."""

    def __call__(self, call: Call, act: Callable[[], Any]) -> Any:
        """Cut the bytes of a read, or the file of a fetch."""
        result = act()
        if call.verb == "read":
            data, version = result
            return data[: len(data) // 2], version
        if call.verb == "fetch" and call.target is not None:
            with call.target.open("r+b") as file:
                file.truncate(call.target.stat().st_size // 2)
        return result


@dataclass(frozen=True)
class Stale:
    """A read shows what an earlier one showed, as from a cache in between; before the first, that nothing is there."""

    def __call__(self, call: Call, act: Callable[[], Any]) -> Any:
        """Repeat the earlier answer to a read or stat; other verbs are done as they are."""
        if call.verb not in ("read", "stat"):
            return act()
        if call.earlier is None:
            raise ObjectNotFoundError(f"{call.key!r} does not exist (yet), says a stale answer.")
        return call.earlier


UNAVAILABLE = Refuse(TransientError)
"""503, or a connection that cannot be made: surely not done."""

DENIED = Refuse(AccessDeniedError)
"""403."""

EXPIRED = Refuse(CredentialsExpiredError)
"""The session's credentials have expired."""


def nothing_wrong(call: Call) -> Fault | None:  # noqa: ARG001 - whatever it is
    """Return no fault."""
    return None


def on(verb: str, fault: Fault, *, key: str | None = None, skip: int = 0, times: int | None = None) -> FaultPlan:
    """Return a plan: calls of `verb` (for `key`) go wrong, after the first `skip` and for `times` calls (None: all)."""
    seen = Counter[str]()
    lock = threading.Lock()

    def plan(call: Call) -> Fault | None:
        if call.verb != verb or (key is not None and call.key != key):
            return None
        with lock:
            seen[verb] += 1
            number = seen[verb] - skip
        return fault if number >= 1 and (times is None or number <= times) else None

    return plan


@dataclass
class FaultyStore(ObjectStore):
    """Another store, whose calls go wrong as `plan` says.

    Attributes:
        inner: The real store.
        plan: Asked before each call; may be replaced at any time.
        watch: Told after each call that came back from the real store, well or with an error, on the calling thread.
        calls: All calls so far, in order.
    """

    inner: ObjectStore
    plan: FaultPlan = nothing_wrong
    watch: Callable[[Call], None] | None = None
    calls: list[Call] = field(default_factory=list)
    _earlier: dict[tuple[str, str], Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Take the real store's name."""
        self.url = self.inner.url

    @property
    def server(self) -> str:
        """See `ObjectStore.server`."""
        return self.inner.server

    def read(self, key: str, *, limit: int) -> tuple[bytes, Version]:
        """See `ObjectStore.read`."""
        return self._call("read", key, lambda: self.inner.read(key, limit=limit))

    def write(self, key: str, data: bytes, *, expect: Version | Expect) -> Version:
        """See `ObjectStore.write`."""
        return self._call("write", key, lambda: self.inner.write(key, data, expect=expect))

    def stat(self, key: str) -> ObjectInfo:
        """See `ObjectStore.stat`."""
        return self._call("stat", key, lambda: self.inner.stat(key))

    def upload(
        self,
        key: str,
        source: Path,
        *,
        digests: Digests,
        journal: Journal,
        report: TransferReport,
        base: DeltaBase | None = None,
        progress: Progress | None = None,
        owner: str | None = None,
    ) -> ObjectInfo:
        """See `ObjectStore.upload`."""

        def act() -> ObjectInfo:
            return self.inner.upload(
                key,
                source,
                digests=digests,
                journal=journal,
                report=report,
                base=base,
                progress=progress,
                owner=owner,
            )

        return self._call("upload", key, act)

    def fetch(
        self,
        key: str,
        target: Path,
        *,
        size: int,
        progress: Progress | None = None,
        landing: Landing | None = None,
    ) -> None:
        """See `ObjectStore.fetch`."""

        def act() -> None:
            self.inner.fetch(key, target, size=size, progress=progress, landing=landing)

        return self._call("fetch", key, act, target)

    def copy(self, source: str, target: str) -> ObjectInfo:
        """See `ObjectStore.copy`."""
        return self._call("copy", target, lambda: self.inner.copy(source, target))

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        return self._call("delete", key, lambda: self.inner.delete(key))

    def delete_exactly(self, seen: ObjectInfo) -> None:
        """See `ObjectStore.delete_exactly`; a call of "delete" to plans."""
        return self._call("delete", seen.key, lambda: self.inner.delete_exactly(seen))

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore.scan`; the listing is complete before its first object is yielded."""
        return iter(self._call("scan", prefix, lambda: list(self.inner.scan(prefix))))

    def probe(self) -> Capabilities:
        """See `ObjectStore.probe`."""
        return self._call("probe", "", self.inner.probe)

    def sweep_uploads(
        self, older_than: timedelta, *, ours: Callable[[str], bool] | None = None, dry_run: bool = False
    ) -> list[str]:
        """See `ObjectStore.sweep_uploads`."""

        def act() -> list[str]:
            return self.inner.sweep_uploads(older_than, ours=ours, dry_run=dry_run)

        return self._call("sweep_uploads", "", act)

    def reconnect(self) -> None:
        """See `ObjectStore.reconnect`; never goes wrong."""
        self.inner.reconnect()

    def close(self) -> None:
        """See `ObjectStore.close`."""
        self.inner.close()

    def _call(self, verb: str, key: str, act: Callable[[], T], target: Path | None = None) -> T:
        with self._lock:
            call = Call(verb, key, len(self.calls) + 1, self._earlier.get((verb, key)), target)
            self.calls.append(replace(call, earlier=None))

        def really() -> T:
            try:
                result = act()
                self._earlier.setdefault((verb, key), result)
                return result
            finally:
                if self.watch is not None:
                    self.watch(call)

        fault = self.plan(call)
        return really() if fault is None else fault(call, really)
