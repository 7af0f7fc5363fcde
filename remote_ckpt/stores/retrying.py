"""A store with retries: the only place for the retry policy and expired credentials of all verbs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from remote_ckpt import retry
from remote_ckpt.errors import CredentialsExpiredError, StoreError, TransientError
from remote_ckpt.retry import RetryPolicy
from remote_ckpt.stores.base import (
    MOST_LISTED,
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

_FRESH = 60.0  # seconds; if credentials are refused so soon after reconnecting, reconnecting again does not help
_KEPT = " The checkpoint stays in the local spool."


class Retrying(ObjectStore):
    """A wrapper of another store: verbs are tried again after transient errors until the policy's deadline.

    After expired credentials the store reconnects and the verb is tried again; if the new credentials are refused
    within a minute, the error is raised. A conditional write whose answer was lost is not repeated: only the caller can
    recognise its own write. The last error is raised with the number of attempts and seconds in its message.
    """

    def __init__(self, store: ObjectStore, policy: RetryPolicy) -> None:
        """Wrap `store`."""
        self.url = store.url
        self._store = store
        self._policy = policy

    @property
    def server(self) -> str:
        """See `ObjectStore.server`."""
        return self._store.server

    def read(self, key: str, *, limit: int) -> tuple[bytes, Version]:
        """See `ObjectStore.read`."""
        return self._call(lambda: self._store.read(key, limit=limit))

    def write(self, key: str, data: bytes, *, expect: Version | Expect) -> Version:
        """See `ObjectStore.write`; conditional writes are repeated only after errors without a lost answer."""
        # After a lost answer the repetition of a write that succeeded would be refused, like another writer's conflict.
        may_repeat = retry.is_transient if expect is Expect.ANYTHING else retry.is_safe_to_repeat
        return self._call(lambda: self._store.write(key, data, expect=expect), retry_on=may_repeat)

    def stat(self, key: str) -> ObjectInfo:
        """See `ObjectStore.stat`."""
        return self._call(lambda: self._store.stat(key))

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
        """See `ObjectStore.upload`; another round resumes from the journal."""

        def attempt() -> ObjectInfo:
            return self._store.upload(
                key,
                source,
                digests=digests,
                journal=journal,
                report=report,
                base=base,
                progress=progress,
                owner=owner,
            )

        def count(_: BaseException) -> None:
            report.retries += 1

        return self._call(attempt, on_retry=count, advice=_KEPT, inner=lambda: report.retries)

    def fetch(
        self,
        key: str,
        target: Path,
        *,
        size: int,
        progress: Progress | None = None,
        landing: Landing | None = None,
    ) -> None:
        """See `ObjectStore.fetch`; another round resumes with `landing`, else begins anew and repeats the progress."""
        return self._call(lambda: self._store.fetch(key, target, size=size, progress=progress, landing=landing))

    def copy(self, source: str, target: str) -> ObjectInfo:
        """See `ObjectStore.copy`."""
        return self._call(lambda: self._store.copy(source, target))

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        return self._call(lambda: self._store.delete(key))

    def delete_exactly(self, seen: ObjectInfo) -> None:
        """See `ObjectStore.delete_exactly`."""
        return self._call(lambda: self._store.delete_exactly(seen))

    def delete_if(self, key: str, wanted: Callable[[ObjectInfo], bool]) -> bool:
        """See `ObjectStore.delete_if`; each round calls `stat` again."""
        # Repeated as a whole: after a lost answer the key may be free, or another writer's.
        return self._call(lambda: self._store.delete_if(key, wanted))

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore.scan`; the listing is complete before the first object is yielded."""
        # A listing that breaks off begins anew: an object already yielded would come twice.
        return iter(self._call(lambda: list(self._store.scan(prefix))))

    def find(self, name: str, *, most: int = MOST_LISTED) -> list[str]:
        """See `ObjectStore.find`; only the keys found are kept in memory."""
        return self._call(lambda: self._store.find(name, most=most))

    def probe(self) -> Capabilities:
        """See `ObjectStore.probe`."""
        return self._call(self._store.probe)

    def sweep_uploads(
        self, older_than: timedelta, *, ours: Callable[[str], bool] | None = None, dry_run: bool = False
    ) -> list[str]:
        """See `ObjectStore.sweep_uploads`."""
        return self._call(lambda: self._store.sweep_uploads(older_than, ours=ours, dry_run=dry_run))

    def reconnect(self) -> None:
        """See `ObjectStore.reconnect`."""
        self._store.reconnect()

    def within(self, deadline: float) -> ObjectStore:
        """See `ObjectStore.within`."""
        return Retrying(self._store, replace(self._policy, deadline=min(deadline, self._policy.deadline)))

    def close(self) -> None:
        """See `ObjectStore.close`."""
        self._store.close()

    def _call(
        self,
        action: Callable[[], T],
        *,
        retry_on: Callable[[BaseException], bool] = retry.is_transient,
        on_retry: Callable[[BaseException], None] | None = None,
        advice: str = "",
        inner: Callable[[], int] | None = None,
    ) -> T:
        attempts, started, before = 0, time.monotonic(), inner() if inner else 0

        def attempt() -> T:
            nonlocal attempts
            attempts += 1
            return self._with_fresh_credentials(action)

        try:
            return retry.call(attempt, self._policy, retry_on=retry_on, on_retry=on_retry)
        except (TransientError, CredentialsExpiredError) as error:  # given up: see the class
            seconds = time.monotonic() - started
            if inner is not None:  # uploads: the store repeats parts itself and counts these too
                attempts = 1 + inner() - before
            raise type(error)(_final(error, attempts, seconds) + advice) from error

    def _with_fresh_credentials(self, action: Callable[[], T]) -> T:
        refused = float("-inf")  # of this call alone: another thread's reconnect gives this one no fewer tries
        while True:
            try:
                return action()
            except CredentialsExpiredError:  # the request was refused, so even a conditional write may be repeated
                if time.monotonic() - refused < _FRESH:
                    raise
                self._store.reconnect()
                refused = time.monotonic()


def _final(error: StoreError, attempts: int, seconds: float) -> str:
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    if isinstance(error, CredentialsExpiredError):
        return f"{error} Looking for fresh ones did not help ({times}, {seconds:.0f} s)."
    return f"{error} Gave up after {times} in {seconds:.0f} s; check endpoint, network, and whether the service is up."
