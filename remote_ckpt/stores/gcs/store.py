"""The verbs of `ObjectStore` as requests to Google Cloud Storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

from remote_ckpt.errors import ObjectNotFoundError
from remote_ckpt.location import Location
from remote_ckpt.stores import identity, probe_cache
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
from remote_ckpt.stores.gcs import components, objects, probing
from remote_ckpt.stores.gcs.session import GcsSession
from remote_ckpt.stores.gcs.upload import GcsUploadContext, upload
from remote_ckpt.stores.sources import open_source
from remote_ckpt.stores.transfer.download import Download, Sink
from remote_ckpt.stores.transfer.file_io import FileIO
from remote_ckpt.stores.transfer.part_plan import Range
from remote_ckpt.stores.transfer.rate_limit import RateLimit


class GcsStore(ObjectStore):
    """A run in a bucket of Google Cloud Storage. Versions are generations."""

    def __init__(
        self, location: Location, storage_options: dict[str, Any] | None = None, *, transfer: Transfer | None = None
    ) -> None:
        """Take a run's location, gcsfs's own arguments (they win over ours), and the tuning of transfers."""
        self.url = location.name
        self._session = GcsSession(location, storage_options or {})
        self._transfer = transfer or Transfer()
        self._disk = FileIO()
        self._pace = RateLimit(self._transfer.max_bandwidth)

    @property
    def server(self) -> str:
        """The endpoint from gcsfs."""
        return identity.of_url(self._session.endpoint)

    def read(self, key: str, *, limit: int) -> tuple[bytes, Version]:
        """Get an object of at most `limit` bytes."""
        return self._session.run(objects.read(self._session, key, limit))

    def write(self, key: str, data: bytes, *, expect: Version | Expect) -> Version:
        """Insert with a precondition on the generation, and a checksum for the service to compare."""
        return self._session.run(objects.put(self._session, key, data, expect))

    def stat(self, key: str) -> ObjectInfo:
        """Get an object's resource; after a 404, a second request finds out whether the bucket is missing."""
        try:
            return self._session.run(objects.look(self._session, key))
        except ObjectNotFoundError:  # the same 404 for a missing object and for a missing bucket
            self._session.run(self._session.require_bucket())
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
        """Insert, or send components in a sliding window and compose; only if no object has the key (generation 0)."""
        known = probe_cache.recall(self._place)
        with open_source(source) as fd:
            job = GcsUploadContext(
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
            return self._session.run(upload(job))

    def fetch(
        self,
        key: str,
        target: Path,
        *,
        size: int,
        progress: Progress | None = None,
        landing: Landing | None = None,
    ) -> None:
        """Get ranges in parallel, all of the same generation; skip the ranges already in `landing`."""
        download = Download(target, size, self._disk, self._transfer, progress, landing)
        self._session.run(self._fetch(key, download))

    def copy(self, source: str, target: str) -> ObjectInfo:
        """Copy inside the service, with rewrite requests."""

        async def copy() -> ObjectInfo:
            return await objects.rewrite(self._session, await objects.look(self._session, source), target)

        return self._session.run(copy())

    def delete(self, key: str) -> None:
        """Delete an object; in a versioned bucket the old version stays retrievable."""
        self._session.run(objects.delete(self._session, key))

    def delete_exactly(self, seen: ObjectInfo) -> None:
        """Delete only this generation; if a probe found that the server ignores the condition, compare first."""
        known = probe_cache.recall(self._place)
        if known is not None and not known.conditional_delete:
            return super().delete_exactly(seen)
        return self._session.run(objects.delete(self._session, seen.key, seen.version))

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """List page by page, without the components of uploads under way."""
        token = ""
        while True:
            page, token = self._session.run(objects.list_page(self._session, prefix, token))
            yield from (info for info in page if not info.key.startswith(components.FOLDER))
            if not token:
                return

    def probe(self) -> Capabilities:
        """Try requests on a small object under the hidden folder; once per bucket and month on a machine."""
        return probe_cache.remembered(self._place, partial(probing.probe, self._session))

    def sweep_uploads(
        self,
        older_than: timedelta,
        *,
        ours: Callable[[str], bool] | None = None,  # noqa: ARG002 - all of them lie in our own folder
        dry_run: bool = False,
    ) -> list[str]:
        """Delete the components of abandoned uploads under this run, for example of killed processes."""
        oldest = datetime.now(timezone.utc) - older_than

        async def sweep() -> list[str]:
            found = components.abandoned(await components.listed(self._session, components.FOLDER), oldest)
            if not dry_run:
                await components.remove(self._session, found)
            return [info.key for info in found]

        return self._session.run(sweep())

    def reconnect(self) -> None:
        """Make a new session."""
        self._session.reconnect()

    def close(self) -> None:
        """Close the connections, and end the threads after their present work."""
        self._session.close()
        self._disk.close()

    @property
    def _place(self) -> str:
        return f"gs {self.server} {self._session.bucket}"

    async def _fetch(self, key: str, download: Download) -> None:
        info = await objects.look(self._session, key)

        async def get(part: Range, sink: Sink) -> None:
            await objects.get_range(self._session, key, part, info.version, self._pace, sink)

        await download.run(info, get, self._session.name(key))
