"""The verbs of `ObjectStore` as requests to S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

from remote_ckpt.errors import AccessDeniedError, InvalidRequestError, ObjectNotFoundError
from remote_ckpt.location import Location
from remote_ckpt.stores import probe_cache
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
    Transfer,
    TransferReport,
    Version,
)
from remote_ckpt.stores.checksums import crc32c, encode
from remote_ckpt.stores.emulated_cas import compared, lock_of
from remote_ckpt.stores.s3 import copying, multipart_requests, objects, probing, upload
from remote_ckpt.stores.s3.session import S3Session
from remote_ckpt.stores.s3.upload_context import S3UploadContext
from remote_ckpt.stores.sources import open_source
from remote_ckpt.stores.transfer.download import Download, Sink
from remote_ckpt.stores.transfer.file_io import FileIO
from remote_ckpt.stores.transfer.part_plan import Range
from remote_ckpt.stores.transfer.rate_limit import RateLimit


class S3Store(ObjectStore):
    """A run in a bucket of S3, or of a server with the S3 API.

    Versions are ETags. If a probe found that the server ignores preconditions, a write first compares the version and
    then writes without a condition, under a lock: safe among the threads of one process, not among processes.
    """

    def __init__(
        self, location: Location, storage_options: dict[str, Any] | None = None, *, transfer: Transfer | None = None
    ) -> None:
        """Take a run's location, s3fs's own arguments (they win over ours), and the tuning of transfers."""
        self.url = location.name
        self._session = S3Session(location, storage_options or {})
        self._transfer = transfer or Transfer()
        self._disk = FileIO()
        self._pace = RateLimit(self._transfer.max_bandwidth)

    @property
    def server(self) -> str:
        """The endpoint from botocore; all endpoints of AWS in a partition have the same name here."""
        return self._session.server

    def read(self, key: str, *, limit: int) -> tuple[bytes, Version]:
        """Get an object of at most `limit` bytes."""
        return self._session.run(objects.read(self._session, key, limit))

    def write(self, key: str, data: bytes, *, expect: Version | Expect) -> Version:
        """Put with If-None-Match or If-Match, and a checksum for the server to compare.

        aiohttp repeats a PUT once when a reused connection breaks, so our own first request may cause a refusal.
        """
        known = probe_cache.recall(self._place)
        if known is not None and not known.many_writers and expect is not Expect.ANYTHING:
            # This server ignores preconditions: the lock keeps other threads of this process from writing in between.
            with compared(self, self._place, key, expect):
                return self._put(key, data, Expect.ANYTHING)
        return self._put(key, data, expect)

    def stat(self, key: str) -> ObjectInfo:
        """Head an object; after a 404, a second request finds out whether the bucket is missing."""
        try:
            return self._session.run(objects.head(self._session, key))
        except ObjectNotFoundError:  # the answer to a HEAD has no body to name what is missing
            with suppress(AccessDeniedError):  # the policy allows this run alone; but the bucket exists
                self._session.run(self._session.call("head_bucket", "reach", ""))
            raise

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
        """Put with If-None-Match, or send parts in a sliding window and complete with If-None-Match."""
        known = self.probe() if base is not None else probe_cache.recall(self._place)
        if known is not None and not known.range_copy:
            base = None
        # A server that ignores If-None-Match at completion would let two threads complete the same key: the lock lets
        # one look and upload after the other. Other processes are not held back by it.
        alone = nullcontext() if known is None or known.create_only_upload else lock_of(self._place)
        with alone, open_source(source) as fd:
            job = S3UploadContext(
                session=self._session,
                url=self._session.name(key),
                disk=self._disk,
                pace=self._pace,
                transfer=self._transfer,
                key=key,
                source=source,
                fd=fd,
                digests=digests,
                journal=journal,
                report=report,
                base=base,
                progress=progress,
                owner=owner,
                owners_last=known is not None and known.owners,
            )
            return self._session.run(upload.upload(job, look_first=known is None or not known.create_only))

    def fetch(
        self,
        key: str,
        target: Path,
        *,
        size: int,
        progress: Progress | None = None,
        landing: Landing | None = None,
    ) -> None:
        """Get ranges in parallel, all with the same ETag; skip the ranges of this ETag already in `landing`."""
        download = Download(target, size, self._disk, self._transfer, progress, landing)
        self._session.run(self._fetch(key, download))

    def copy(self, source: str, target: str) -> ObjectInfo:
        """Copy inside S3; a large object is copied in ranges, if the server supports range copies."""
        return self._session.run(copying.copy(self._session, source, target))

    def delete(self, key: str) -> None:
        """Delete an object; in a versioned bucket the old version stays retrievable."""
        self._session.run(objects.delete(self._session, key))

    def delete_exactly(self, seen: ObjectInfo) -> None:
        """Delete with If-Match; where the server refuses or ignores the header, compare first and then delete.

        Equal bytes may have equal ETags: an object with the same bytes, created since then by another writer under the
        same key, can be deleted too. Only the owner distinguishes the two objects.
        """
        known = probe_cache.recall(self._place)
        if known is None or known.conditional_delete:
            with suppress(InvalidRequestError):  # this server does not support If-Match on DELETE
                return self._session.run(objects.delete(self._session, seen.key, seen.version))
        return super().delete_exactly(seen)

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """List page by page."""
        more: dict[str, Any] = {}
        while True:
            page, more = self._session.run(objects.list_page(self._session, prefix, more))
            yield from page
            if not more:
                return

    def probe(self) -> Capabilities:
        """Try requests on small objects under the hidden folder; once per bucket and month on a machine."""
        return probe_cache.remembered(self._place, partial(probing.probe, self._session, self._put))

    def sweep_uploads(
        self, older_than: timedelta, *, ours: Callable[[str], bool] | None = None, dry_run: bool = False
    ) -> list[str]:
        """Abort unfinished uploads under this run's prefix; S3 lists each with the key of the future object."""
        oldest = datetime.now(timezone.utc) - older_than
        return self._session.run(multipart_requests.sweep(self._session, oldest, ours or _any, dry_run=dry_run))

    def reconnect(self) -> None:
        """Make a new session."""
        self._session.reconnect()

    def close(self) -> None:
        """Close the connections, and end the threads after their present work."""
        self._session.close()
        self._disk.close()

    @property
    def _place(self) -> str:
        return f"s3 {self._session.server} {self._session.bucket}"

    def _put(self, key: str, data: bytes, expect: Version | Expect) -> Version:
        return self._session.run(objects.put(self._session, key, data, encode(crc32c(data)), expect))

    async def _fetch(self, key: str, download: Download) -> None:
        info = await objects.head(self._session, key)

        async def get(part: Range, sink: Sink) -> None:
            await objects.get_range(self._session, key, part, info.version, self._pace, sink)

        await download.run(info, get, self._session.name(key), round_trip=self._session.round_trip)


def _any(_: str) -> bool:
    return True
