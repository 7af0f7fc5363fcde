"""The dozen verbs, in S3's words."""

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
    Base,
    Capabilities,
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
from remote_ckpt.stores.engine.disk import Disk
from remote_ckpt.stores.engine.fetch import Download, Sink
from remote_ckpt.stores.engine.pace import Pace
from remote_ckpt.stores.engine.plan import Range
from remote_ckpt.stores.s3 import copying, objects, probing, upload, uploads
from remote_ckpt.stores.s3.job import S3Job
from remote_ckpt.stores.s3.session import S3Session
from remote_ckpt.stores.soft import compared, lock_of
from remote_ckpt.stores.sources import open_source


class S3Store(ObjectStore):
    """A run in a bucket of S3, or of a server that speaks its language.

    Versions are ETags. Where a probe found that the server ignores preconditions, writes compare first and write
    then: safe among the threads of one process, and only there.
    """

    def __init__(
        self, location: Location, storage_options: dict[str, Any] | None = None, *, transfer: Transfer | None = None
    ) -> None:
        """Take a run's location, s3fs's own arguments (they win over ours), and the tuning of transfers."""
        self.url = location.name
        self._session = S3Session(location, storage_options or {})
        self._transfer = transfer or Transfer()
        self._disk = Disk()
        self._pace = Pace(self._transfer.max_bandwidth)

    @property
    def server(self) -> str:
        """The endpoint as botocore resolved it; one name for all of AWS's in a partition."""
        return self._session.server

    def read(self, key: str, *, limit: int) -> tuple[bytes, Version]:
        """Get an object unless it is too large."""
        return self._session.run(objects.read(self._session, key, limit))

    def write(self, key: str, data: bytes, *, expect: Version | Expect) -> Version:
        """Put with If-None-Match or If-Match, and a checksum that the server compares.

        aiohttp repeats a PUT once when the connection breaks, so a refusal may be owed to our own first request.
        """
        known = probe_cache.recall(self._place)
        if known is not None and not known.many_writers and expect is not Expect.ANYTHING:
            with compared(self, self._place, key, expect):
                return self._put(key, data, Expect.ANYTHING)
        return self._put(key, data, expect)

    def stat(self, key: str) -> ObjectInfo:
        """Head an object; a second request tells a missing bucket from a missing object."""
        try:
            return self._session.run(objects.head(self._session, key))
        except ObjectNotFoundError:
            with suppress(AccessDeniedError):  # by a policy that lets us see this run alone; but there is a bucket
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
        base: Base | None = None,
        progress: Progress | None = None,
        owner: str | None = None,
    ) -> ObjectInfo:
        """Put, or send parts in a sliding window and complete with If-None-Match."""
        known = self.probe() if base is not None else probe_cache.recall(self._place)
        if known is not None and not known.range_copy:
            base = None
        alone = nullcontext() if known is None or known.create_only_upload else lock_of(self._place)
        with alone, open_source(source) as fd:
            job = S3Job(
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
        """Get ranges in parallel, all of one ETag; those of it that `landing` has are not asked for."""
        download = Download(target, size, self._disk, self._transfer, progress, landing)
        self._session.run(self._fetch(key, download))

    def copy(self, source: str, target: str) -> ObjectInfo:
        """Copy inside S3, in ranges where the object is too large for one request."""
        return self._session.run(copying.copy(self._session, source, target))

    def delete(self, key: str) -> None:
        """Delete an object; in a versioned bucket it stays retrievable."""
        self._session.run(objects.delete(self._session, key))

    def delete_exactly(self, seen: ObjectInfo) -> None:
        """Delete with If-Match; a server that does not take it, or ignores it, is looked at instead.

        The ETag of equal bytes is the same: who has the name by then with equal bytes is told by the owner alone.
        """
        known = probe_cache.recall(self._place)
        if known is None or known.conditional_delete:
            with suppress(InvalidRequestError):
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
        """Try it on small objects under the hidden folder, once per bucket and month."""
        return probe_cache.remembered(self._place, partial(probing.probe, self._session, self._put))

    def sweep_uploads(
        self, older_than: timedelta, *, ours: Callable[[str], bool] | None = None, dry_run: bool = False
    ) -> list[str]:
        """Abort unfinished uploads under this run's prefix; S3 lists them by the keys that they would have."""
        oldest = datetime.now(timezone.utc) - older_than
        return self._session.run(uploads.sweep(self._session, oldest, ours or _any, dry_run=dry_run))

    def reconnect(self) -> None:
        """Make a fresh session."""
        self._session.reconnect()

    def close(self) -> None:
        """Close connections and threads."""
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
