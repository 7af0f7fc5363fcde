"""What happens to transfers on a bad day: histories, against a real server behind a proxy that fails on purpose."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from faulty_proxy import (
    CUT_AFTER,
    CUT_BEFORE,
    CUT_BODY,
    DENIED,
    EXPIRED,
    INTERNAL,
    SLOW_DOWN,
    Answer,
    FaultyProxy,
    Seen,
    faulty_proxy,
)
from waiting import HANG

from remote_ckpt.digests import digest_file
from remote_ckpt.errors import (
    AccessDeniedError,
    CorruptCheckpointError,
    CredentialsExpiredError,
    OutcomeUnknownError,
    PreconditionFailedError,
    TransientError,
)
from remote_ckpt.location import Location
from remote_ckpt.stores import MIB, Digests, Expect, MemoryJournal, ObjectStore, Transfer, TransferReport, open_store
from remote_ckpt.testing.conformance import make_file
from remote_ckpt.testing.servers import Server

SIZE = 22 * MIB + 11
PART = 5 * MIB
PARTS = 5


@dataclass
class FileJournal:
    """A journal that outlives its upload."""

    state: dict[str, Any] = field(default_factory=dict)

    def load(self) -> dict[str, Any]:
        return dict(self.state)

    def save(self, state: dict[str, Any]) -> None:
        self.state = json.loads(json.dumps(state))


@dataclass
class World:
    """A store behind a proxy, a hasty one that gives up soon, and the same place seen directly.

    Only what is to be given up is asked of the hasty one: what is to succeed has all the time of a loaded machine.
    """

    proxy: FaultyProxy
    store: ObjectStore
    hasty: ObjectStore
    direct: ObjectStore
    source: Path
    digests: Digests
    protocol: str

    def upload(self, journal: Any = None, store: ObjectStore | None = None) -> TransferReport:
        report = TransferReport()
        (store or self.store).upload(
            "w.h5", self.source, digests=self.digests, journal=journal or MemoryJournal(), report=report
        )
        return report

    def is_whole(self, folder: Path) -> bool:
        self.direct.fetch("w.h5", folder / "check", size=self.digests.size)
        return digest_file(folder / "check").sha256 == self.digests.sha256

    def is_part(self, seen: Seen) -> bool:
        """Whether a request sends a part (S3) or a component (GCS)."""
        return (seen.method == "PUT" and "partNumber=" in seen.path) or "/upload/" in seen.path

    def is_completion(self, seen: Seen) -> bool:
        """Whether a request makes the object of its parts."""
        ours = "w.h5" in seen.path
        return ours and seen.method == "POST" and ("uploadId=" in seen.path or "/compose" in seen.path)

    def leftovers(self) -> list[str]:
        return self.direct.sweep_uploads(timedelta(0), dry_run=True)


@pytest.fixture(params=["seaweedfs", "fake_gcs"])
def world(
    request: pytest.FixtureRequest, get_server: Callable[[str], Server], prefix: str, tmp_path: Path
) -> Iterator[World]:
    """A world of S3, and one of GCS."""
    server = get_server(request.param)
    with faulty_proxy(server.endpoint) as proxy:
        location = Location.parse(server.url(prefix))
        options = {**server.storage_options, "endpoint_url": proxy.endpoint}
        digests = make_file(tmp_path / "source", SIZE)
        patient = Transfer(part_size=PART, concurrency=2, deadline=HANG)
        store, hasty = (open_store(location, options, transfer=one) for one in (patient, replace(patient, deadline=1)))
        direct = open_store(location, dict(server.storage_options))
        yield World(proxy, store, hasty, direct, tmp_path / "source", digests, server.protocol)
        for one in (store, hasty, direct):
            one.close()


def first_time(fault: Any, when: Callable[[Seen], bool]) -> Callable[[Seen], Any]:
    """Return a rule: the fault, once for each different request that `when` picks."""
    return lambda seen: fault if when(seen) and seen.number == 1 else None


@pytest.mark.parametrize("fault", [SLOW_DOWN, INTERNAL, CUT_BEFORE, CUT_AFTER])
def test_every_part_fails_once_and_the_object_is_whole(world: World, tmp_path: Path, fault: Any) -> None:
    """Parts are repeated one by one."""
    failed: set[str] = set()

    def rule(seen: Seen) -> Any:
        if world.is_part(seen) and len(failed) < 3 and (seen.path, len(failed)) not in failed:
            failed.add((seen.path, len(failed)))  # type: ignore[arg-type]
            return fault
        return None

    world.proxy.fault = rule
    report = world.upload()
    assert report.retries >= 1
    assert world.is_whole(tmp_path)
    assert world.leftovers() == []


@pytest.mark.parametrize("fault", [INTERNAL, CUT_BEFORE, CUT_AFTER])
def test_a_lost_answer_to_the_completion_is_found_to_be_success(world: World, tmp_path: Path, fault: Any) -> None:
    """The object that is there has our digests."""
    world.proxy.fault = first_time(fault, world.is_completion)
    world.upload()
    assert world.is_whole(tmp_path)
    assert world.leftovers() == []


def test_a_lost_answer_to_a_small_upload_is_found_to_be_success(world: World, tmp_path: Path) -> None:
    """The second request is refused, by our own object."""
    world.digests = make_file(world.source, 1000)
    lost: list[Seen] = []

    def rule(seen: Seen) -> Any:
        if seen.method in ("PUT", "POST") and not lost:
            lost.append(seen)
            return CUT_AFTER
        return None

    world.proxy.fault = rule
    world.upload()
    assert len(lost) == 1
    assert world.is_whole(tmp_path)


def test_a_conditional_write_whose_answer_is_lost_is_not_repeated(world: World) -> None:
    """Only the caller can recognise its own write. (aiohttp repeats a PUT once, which the precondition refuses.)"""
    version = world.direct.write("manifest.json", b"1", expect=Expect.ABSENT)
    sent = []

    def rule(seen: Seen) -> Any:
        if seen.method in ("PUT", "POST"):
            sent.append(seen)
            return CUT_AFTER
        return None

    world.proxy.fault = rule
    with pytest.raises(OutcomeUnknownError):
        world.store.write("manifest.json", b"2", expect=version)
    assert len(sent) == (2 if world.protocol == "s3" else 1)
    assert world.direct.read("manifest.json", limit=10)[0] == b"2"


def test_a_conditional_write_that_was_surely_refused_is_repeated(world: World) -> None:
    """S3's "slow down", and 429 everywhere, mean that nothing was written."""
    busy = SLOW_DOWN if world.protocol == "s3" else Answer(429)
    world.proxy.fault = first_time(busy, lambda seen: seen.method in ("PUT", "POST"))
    world.store.write("manifest.json", b"1", expect=Expect.ABSENT)
    assert world.direct.read("manifest.json", limit=10)[0] == b"1"


@pytest.mark.parametrize("fault", [SLOW_DOWN, CUT_BODY, CUT_BEFORE])
def test_every_range_breaks_once_and_the_file_is_whole(world: World, tmp_path: Path, fault: Any) -> None:
    """Ranges are repeated one by one."""
    world.upload()
    broken: list[Seen] = []

    def rule(seen: Seen) -> Any:
        data = seen.method == "GET" and ("alt=media" in seen.path or world.protocol == "s3")
        if data and len(broken) < 3:
            broken.append(seen)
            return fault
        return None

    world.proxy.fault = rule
    world.store.fetch("w.h5", tmp_path / "target", size=SIZE)
    assert len(broken) == 3
    assert digest_file(tmp_path / "target").sha256 == world.digests.sha256


def test_an_object_replaced_during_its_download_is_never_mixed(world: World, tmp_path: Path) -> None:
    """All ranges belong to one version, or there is an error."""
    world.upload()
    ranges: list[Seen] = []

    def rule(seen: Seen) -> None:
        if seen.method == "GET" and ("alt=media" in seen.path or world.protocol == "s3"):
            ranges.append(seen)
            if len(ranges) == 3:
                world.direct.write("w.h5", b"x" * 100, expect=Expect.ANYTHING)

    world.proxy.fault = rule
    with pytest.raises((PreconditionFailedError, FileNotFoundError)):
        world.store.fetch("w.h5", tmp_path / "target", size=SIZE)


def test_an_upload_that_ran_out_of_time_is_resumed_by_the_next(world: World, tmp_path: Path) -> None:
    """Only what was missing is sent."""
    parts: list[str] = []

    def rule(seen: Seen) -> Any:
        if world.is_part(seen):
            parts.append(seen.path)
            return INTERNAL if len(parts) > 3 else None
        return None

    world.proxy.fault = rule
    journal = FileJournal()
    with pytest.raises(TransientError, match="local spool"):
        world.upload(journal, world.hasty)
    assert journal.state
    world.proxy.fault = lambda _: None
    report = world.upload(journal)
    assert report.reused >= 2 * PART
    assert report.sent <= SIZE - 2 * PART
    assert world.is_whole(tmp_path)
    assert world.leftovers() == []


def test_an_upload_whose_parts_were_swept_meanwhile_begins_again(world: World, tmp_path: Path) -> None:
    """A journal that names nothing is no obstacle."""
    world.proxy.fault = lambda seen: INTERNAL if world.is_part(seen) and "2" in seen.path[-40:] else None
    journal = FileJournal()
    if world.protocol == "gs":
        world.proxy.fault = lambda seen: INTERNAL if world.is_completion(seen) else None
    with pytest.raises(TransientError):
        world.upload(journal, world.hasty)
    assert world.direct.sweep_uploads(timedelta(0))
    world.proxy.fault = lambda _: None
    world.upload(journal)
    assert world.is_whole(tmp_path)


def test_a_refused_upload_leaves_nothing_behind(world: World) -> None:
    """Nobody pays for parts that nobody will use."""
    parts: list[str] = []

    def rule(seen: Seen) -> Any:
        if world.is_part(seen):
            parts.append(seen.path)
            return DENIED if len(parts) > 2 else None
        return None

    world.proxy.fault = rule
    journal = FileJournal()
    with pytest.raises(AccessDeniedError):
        world.upload(journal)
    world.proxy.fault = lambda _: None
    assert world.leftovers() == []
    assert list(world.direct.scan()) == []


def test_a_file_that_changed_since_it_was_sealed_never_becomes_an_object(world: World) -> None:
    """Rot on the local disk is found before the object is visible."""
    with world.source.open("r+b") as file:
        file.seek(7 * MIB)
        file.write(b"rot")
    with pytest.raises(CorruptCheckpointError):
        world.upload()
    assert list(world.direct.scan()) == []
    assert world.leftovers() == []


def test_expired_credentials_are_looked_for_again_once(world: World) -> None:
    """A fresh session may find new ones; when it does not, the user is told."""
    if world.protocol != "s3":
        pytest.skip("GCS says 401, which its own test covers")
    world.direct.write("manifest.json", b"1", expect=Expect.ABSENT)
    world.proxy.fault = first_time(EXPIRED, lambda seen: seen.method == "GET")
    assert world.store.read("manifest.json", limit=10)[0] == b"1"
    world.proxy.fault = lambda _: EXPIRED
    before = len(world.proxy.seen)
    with pytest.raises(CredentialsExpiredError, match="expired"):
        world.store.read("manifest.json", limit=10)
    assert len(world.proxy.seen) - before == 2


def test_a_dead_server_is_given_up_within_the_deadline(world: World) -> None:
    """The error says how long and how often."""
    world.proxy.fault = lambda _: CUT_BEFORE
    start = time.monotonic()
    with pytest.raises(TransientError, match=r"Gave up after \d+ attempts? in \d+ s"):
        world.hasty.read("manifest.json", limit=10)
    assert time.monotonic() - start < HANG / 2


def test_two_transfers_share_a_store(world: World, tmp_path: Path) -> None:
    """Threads do not disturb each other."""
    world.upload()
    results: list[str] = []

    def fetch(number: int) -> None:
        world.store.fetch("w.h5", tmp_path / f"target-{number}", size=SIZE)
        results.append(digest_file(tmp_path / f"target-{number}").sha256)

    threads = [threading.Thread(target=fetch, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [world.digests.sha256] * 3
