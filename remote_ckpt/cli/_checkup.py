"""The checks of `remote-ckpt doctor`, made in order on the run itself; the test objects are deleted afterwards."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from remote_ckpt.digests import digest_file
from remote_ckpt.errors import ObjectNotFoundError, RemoteCkptError
from remote_ckpt.formatting import human_bytes
from remote_ckpt.location import HIDDEN
from remote_ckpt.run import Run
from remote_ckpt.run.not_found_messages import unnamed_files
from remote_ckpt.saving.spool import Spool
from remote_ckpt.stores import TransferReport, credentials, probe_cache
from remote_ckpt.stores.base import Expect, MemoryJournal

MIB = 1 << 20

_LOOKS = 10  # requests whose median is the latency
_SKEWED = 60.0  # seconds; with several machines, the latest checkpoint is found by their clocks
_LITTLE_ROOM = 1 << 30  # bytes

Status = Literal["ok", "warn", "FAIL", "skip"]


@dataclass(frozen=True)
class Finding:
    """The result of a check; `told` is the text to show, after most failures with a remedy."""

    check: str
    status: Status
    told: str


class _ConcernError(Exception):
    """A check found a weakness, but no failure: status `warn`."""


class Checkup:
    """The checks of a run. For use by a single thread, once."""

    def __init__(self, run: Run, options: dict[str, Any], size: int) -> None:
        """Take the run, the store's options, and the number of bytes to send and fetch (over 8 MiB)."""
        self._run = run
        self._options = options
        self._size = size
        self._key = f"{HIDDEN}/doctor-{uuid.uuid4().hex}"
        self._object = f"{self._key}.weights.h5"
        self._skew = 0.0  # seconds by which the store's clock is ahead of ours
        self._speeds: list[str] = []
        self._folder = Path()
        self._bad: set[str] = set()  # names of checks that failed or were skipped

    def findings(self) -> Iterator[Finding]:
        """Yield the result of each check.

        A check is skipped if the check on which it depends failed or was skipped. At the end the test objects and the
        temporary folder are deleted, also if the caller stops early. If the check `write` failed or was skipped,
        nothing is deleted in the bucket. Store errors of these last deletions are ignored.
        """
        checks: list[tuple[str, Callable[[], str], str]] = [
            ("credentials", self._credentials, ""),
            ("bucket", self._bucket, ""),
            ("manifest", self._manifest, "bucket"),
            ("write", self._write, "bucket"),
            ("read", self._read, "write"),
            ("preconditions", self._preconditions, "write"),
            ("multipart", self._upload, "write"),
            ("checksums", self._fetch, "multipart"),
            ("throughput", self._throughput, "checksums"),
            ("latency", self._latency, "write"),
            ("clock", self._clock, "write"),
            ("delete", self._delete, "write"),
            ("spool", self._spool, ""),
            ("pending", self._pending, ""),
        ]
        with tempfile.TemporaryDirectory(prefix="remote-ckpt-doctor-") as folder:
            self._folder = Path(folder)
            try:
                for name, check, needs in checks:
                    yield self._try(name, check, needs)
            finally:
                self._remove()

    def _try(self, name: str, check: Callable[[], str], needs: str) -> Finding:
        if needs in self._bad:
            self._bad.add(name)
            return Finding(name, "skip", f"needs: {needs}")
        try:
            return Finding(name, "ok", check())
        except _ConcernError as exc:
            return Finding(name, "warn", str(exc))
        except (RemoteCkptError, OSError) as exc:  # any other exception is a bug, and ends the command
            self._bad.add(name)
            return Finding(name, "FAIL", str(exc))

    def _credentials(self) -> str:
        return credentials.describe(self._run.location, self._options)

    def _bucket(self) -> str:
        with suppress(ObjectNotFoundError):
            self._run.store.read(self._key, limit=MIB)  # GET, not HEAD: only GET's answer has a body with the reason
        return "answers"

    def _manifest(self) -> str:
        manifest = self._run.manifest()
        count = sum(len(series.checkpoints) for series in manifest.series.values())
        signed = ", signed with our key" if self._run.signer.has_key and manifest.series else ""
        if not count and (left := len(self._run.unnamed())):
            raise _ConcernError(unnamed_files(self._run.location, left))
        return f"{count} checkpoints at hand{signed}" if manifest.series else "none yet"

    def _write(self) -> str:
        begun = time.time()
        self._run.store.write(self._key, b"written by remote-ckpt doctor", expect=Expect.ABSENT)
        told = self._run.store.stat(self._key).modified
        self._skew = 0.0 if told is None else told.timestamp() - begun
        return "a small object was written"

    def _read(self) -> str:
        data, _ = self._run.store.read(self._key, limit=MIB)
        if data != b"written by remote-ckpt doctor":
            raise RemoteCkptError("What was read is not what was written. Is something between us and the store?")
        return "and read again"

    def _preconditions(self) -> str:
        probe_cache.forget()  # answers from an earlier probe would hide a change of the store
        notes = self._run.store.probe().notes
        if notes:
            raise _ConcernError(" ".join(notes))
        return "several writers are safe"

    def _upload(self) -> str:
        source = self._folder / "sent.weights.h5"
        source.write_bytes(os.urandom(self._size))
        report, begun = TransferReport(), time.monotonic()
        digests = digest_file(source)
        self._run.store.upload(self._object, source, digests=digests, journal=MemoryJournal(), report=report)
        self._speeds.append(f"up {self._speed(begun)}")
        again = f", {report.retries} requests had to be repeated" if report.retries else ""
        return f"{human_bytes(self._size)} arrived{again}"

    def _fetch(self) -> str:
        target, begun = self._folder / "fetched.weights.h5", time.monotonic()
        self._run.store.fetch(self._object, target, size=self._size)
        self._speeds.append(f"down {self._speed(begun)}")
        sent, found = digest_file(self._folder / "sent.weights.h5"), digest_file(target)
        if found.sha256 != sent.sha256:
            raise RemoteCkptError("What was fetched is not what was sent. Is something between us and the store?")
        if self._run.store.stat(self._object).crc32c is None:
            return "what was fetched is what was sent; the store keeps no crc32c, so uploads are compared another way"
        return "what was fetched is what was sent, and the store's crc32c is ours"

    def _throughput(self) -> str:
        return ", ".join(self._speeds)

    def _speed(self, begun: float) -> str:
        return f"{human_bytes(int(self._size / max(time.monotonic() - begun, 1e-6)))}/s"

    def _latency(self) -> str:
        seconds = []
        for _ in range(_LOOKS):
            begun = time.monotonic()
            self._run.store.stat(self._key)
            seconds.append(time.monotonic() - begun)
        return f"{statistics.median(seconds) * 1000:.1f} ms, the median of {_LOOKS} small requests"

    def _clock(self) -> str:
        if abs(self._skew) > _SKEWED:
            raise _ConcernError(
                f"this machine's clock is {abs(self._skew):.0f} s from the store's, and the latest checkpoint is "
                "found by the writers' clocks. Set it: timedatectl set-ntp true"
            )
        return f"within {max(2, round(abs(self._skew)))} s of the store's"

    def _delete(self) -> str:
        for key in (self._key, self._object):
            self._run.store.delete(key)
        try:
            self._run.store.stat(self._key)
        except ObjectNotFoundError:
            return "what was written is gone"
        raise RemoteCkptError(f"{self._run.location.url(self._key)} was deleted and is still there. Is it locked?")

    def _spool(self) -> str:
        spool = Spool(self._run.location)
        try:
            spool.scratch()
            room = spool.room()
        finally:
            spool.close()
        told = f"room for {human_bytes(max(room, 0))} in {spool.folder}"
        if room < _LITTLE_ROOM:
            raise _ConcernError(f"{told}. Free some space, or set spool_dir (REMOTE_CKPT_SPOOL) or spool_limit.")
        return told

    def _pending(self) -> str:
        told = list(self._run.elsewhere())
        if waiting := len(self._run.pending()):
            told.append(f"{waiting} wait on this machine: `remote-ckpt recover {self._run.url}` uploads them.")
        if told:
            raise _ConcernError(" ".join(told))
        return "nothing waits on this machine"

    def _remove(self) -> None:
        """Delete the test objects left by a failed check; errors are ignored, as the check `delete` reports them."""
        for key in (self._key, self._object):
            with suppress(RemoteCkptError):
                if "write" not in self._bad:
                    self._run.store.delete(key)


def as_json(findings: list[Finding]) -> list[dict[str, str]]:
    """Return findings for programs."""
    return [asdict(finding) for finding in findings]
