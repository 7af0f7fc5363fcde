"""All runs below a prefix, found by their manifests."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from remote_ckpt.errors import (
    AccessDeniedError,
    InvalidRequestError,
    LocationError,
    ManifestError,
    NoCredentialsError,
    ObjectNotFoundError,
)
from remote_ckpt.location import MANIFEST_KEY, Location
from remote_ckpt.manifest.signing import Signer
from remote_ckpt.records import MAX_MANIFEST_BYTES, Manifest
from remote_ckpt.run import READ_TIMEOUT, Run
from remote_ckpt.stores import ObjectStore, open_store

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from remote_ckpt.run.options import RunOptions

T = TypeVar("T")
U = TypeVar("U")

_TOGETHER = 8  # manifests read at once, and the most that are in memory


@dataclass(frozen=True)
class FoundRun:
    """A run below a prefix.

    Attributes:
        name: The run's folder relative to the prefix; empty for a run at the prefix itself.
        run: The run, to read more of it. This object has sent no request yet.
        manifest: The run's manifest. Of a long run it holds only the recent records, the best and the latest. Empty
            where `problem` is set.
        problem: Why the manifest could not be read, or None.
    """

    name: str
    run: Run
    manifest: Manifest
    problem: str | None = None


def find_runs(prefix: str | os.PathLike[str], **options: Unpack[RunOptions]) -> Iterator[FoundRun]:
    """Yield every run at or below a prefix, in the order of their names.

    Lists all objects below the prefix, then reads each `manifest.json`, several at once in threads. Folders whose names
    begin with a dot are passed over. A run whose manifest is broken, forged or forbidden is yielded with its `problem`,
    and the search goes on. The store is asked when the first run is asked for, not by the call itself.

    Args:
        prefix: A URL such as `s3://bucket/experiments`, or a folder.
        **options: As for `Run`: `storage_options`, `cache_dir`, `transfer`, `spool_dir`, `signing_key`.

    Raises:
        LocationError: The URL cannot be used, or has a filename template.
        InvalidRequestError: There are more than a million objects. Raised on iteration.
        StoreError: The store refused, does not answer, or there are no credentials. Raised on iteration.
    """
    place = Location.parse(prefix)
    if place.template is not None:
        raise LocationError(f"{place.url(place.template)} is a filename template. Name the folder that holds the runs.")
    return _found(place, options)


def _found(place: Location, options: RunOptions) -> Iterator[FoundRun]:
    signer = Signer.of(options.get("signing_key"))
    store = open_store(place, options.get("storage_options"), transfer=options.get("transfer")).within(READ_TIMEOUT)

    def look(folder: str) -> FoundRun | None:
        location = place.below(folder) if folder else place
        run = Run(location, **options)
        try:
            return FoundRun(folder, run, _read(store, f"{folder}/{MANIFEST_KEY}".lstrip("/"), location, signer))
        except ObjectNotFoundError:
            return None  # another process deleted the manifest between the listing and this read
        except NoCredentialsError:  # a subclass of AccessDeniedError, and all other runs would fail too
            raise
        except (ManifestError, AccessDeniedError, InvalidRequestError) as exc:
            return FoundRun(folder, run, Manifest(), str(exc))

    try:
        folders = sorted(key.removesuffix(MANIFEST_KEY).rstrip("/") for key in store.find(MANIFEST_KEY))
        yield from (found for found in _in_order(look, folders) if found is not None)
    finally:
        store.close()


def _read(store: ObjectStore, key: str, location: Location, signer: Signer) -> Manifest:
    data, _ = store.read(key, limit=MAX_MANIFEST_BYTES)
    signer.verify(data, location.url(MANIFEST_KEY))
    return Manifest.parse(data, location)


def _in_order(work: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """Yield the results of `work` in the order of `items`; at most `_TOGETHER` calls are under way."""
    under_way: deque[Future[U]] = deque()
    for item in items:
        under_way.append(_begun(work, item))
        if len(under_way) == _TOGETHER:  # so a consumer that pauses leaves a bounded number of results in memory
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _begun(work: Callable[[T], U], item: T) -> Future[U]:
    """Start `work` in a daemon thread, and return the future of the result.

    Python waits for a thread pool at exit, but not for a daemon thread: Ctrl-C ends the program even while a server
    does not answer.
    """
    future: Future[U] = Future()

    def do() -> None:
        try:
            future.set_result(work(item))
        except BaseException as exc:  # noqa: BLE001 - `Future.result` raises it in the thread that waits
            future.set_exception(exc)

    threading.Thread(target=do, name="remote_ckpt-runs", daemon=True).start()
    return future
