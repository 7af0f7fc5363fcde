"""Uploads that copy what an earlier object holds, when that object or the service is not as expected."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from faulty_proxy import INTERNAL, Answer, FaultyProxy, Seen, faulty_proxy
from waiting import HANG

from remote_ckpt.digests import digest_file
from remote_ckpt.errors import TransientError
from remote_ckpt.location import Location
from remote_ckpt.stores import (
    BLOCK,
    MIB,
    DeltaBase,
    Digests,
    MemoryJournal,
    ObjectStore,
    Transfer,
    TransferReport,
    open_store,
)
from remote_ckpt.stores.s3.upload_context import S3UploadContext
from remote_ckpt.testing.conformance import make_file, upload
from remote_ckpt.testing.servers import Server

SIZE = 5 * BLOCK + 11
NOT_IMPLEMENTED = Answer(501, "<Error><Code>NotImplemented</Code><Message>Not implemented.</Message></Error>")
UNEQUAL = Answer(400, "<Error><Code>InvalidPart</Code><Message>All parts must have the same length.</Message></Error>")


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
    """A checkpoint in the bucket, the next one on the disk with one block changed, and a proxy between them."""

    proxy: FaultyProxy
    store: ObjectStore
    open: Callable[..., ObjectStore]
    direct: ObjectStore
    first: Digests
    second: Digests
    source: Path

    def upload(
        self, key: str = "2.h5", *, base: Digests | None = None, journal: Any = None, store: ObjectStore | None = None
    ) -> TransferReport:
        report = TransferReport()
        (store or self.store).upload(
            key,
            self.source,
            digests=self.second,
            journal=journal or MemoryJournal(),
            report=report,
            base=DeltaBase("1.h5", base or self.first),
        )
        return report

    def is_whole(self, key: str = "2.h5") -> bool:
        target = self.source.with_name("check")
        self.direct.fetch(key, target, size=SIZE)
        return digest_file(target).sha256 == self.second.sha256 and not self.direct.sweep_uploads(timedelta(0))

    def copies(self) -> int:
        return sum(1 for seen in self.proxy.seen if seen.copied.endswith("1.h5"))


def is_sent(seen: Seen) -> bool:
    return seen.method == "PUT" and "partNumber=" in seen.path and not seen.copied


def is_completion(seen: Seen) -> bool:
    return seen.method == "POST" and "2.h5" in seen.path and "uploadId=" in seen.path


def after(
    world: World, count: int, done: Callable[[Seen], bool], *, wait: Callable[[Seen], bool]
) -> Callable[[Seen], Awaitable[None]]:
    """Hold back requests that `wait` picks until the server has done `count` of those that `done` picks."""

    def there() -> int:
        return sum(1 for seen in world.proxy.answered if "2.h5" in seen.path and done(seen))  # none of the probe's

    async def hold_back(seen: Seen) -> None:
        while "2.h5" in seen.path and wait(seen) and there() < count:
            await asyncio.sleep(0.01)

    return hold_back


@pytest.fixture
def world(get_server: Callable[[str], Server], prefix: str, tmp_path: Path) -> Iterator[World]:
    """A world of S3."""
    server = get_server("seaweedfs")
    location = Location.parse(server.url(prefix))
    first = make_file(tmp_path / "first", SIZE)
    data = bytearray((tmp_path / "first").read_bytes())
    data[2 * BLOCK + 5] ^= 1
    (tmp_path / "second").write_bytes(data)
    second = digest_file(tmp_path / "second", blocks=True)
    direct = open_store(location, dict(server.storage_options))
    assert direct.probe().range_copy
    upload(direct, "1.h5", tmp_path / "first", first)
    stores = [direct]
    with faulty_proxy(server.endpoint) as proxy:

        def opened(**tuning: Any) -> ObjectStore:
            options = {**server.storage_options, "endpoint_url": proxy.endpoint}
            store = open_store(location, options, transfer=Transfer(**{"deadline": HANG, **tuning}))
            store.probe()
            stores.append(store)
            return store

        yield World(proxy, opened(), opened, direct, first, second, tmp_path / "second")
        for store in stores:
            store.close()


def test_only_the_changed_block_is_sent(world: World) -> None:
    """The rest is two large copies."""
    report = world.upload()
    assert (report.sent, report.reused, world.copies()) == (BLOCK, SIZE - BLOCK, 2)
    assert world.is_whole()


def test_a_service_that_refuses_to_copy_gets_everything_sent(world: World) -> None:
    """Although a probe found that it copies."""
    world.proxy.fault = lambda seen: NOT_IMPLEMENTED if seen.copied else None
    assert world.upload().sent == SIZE
    assert world.is_whole()


def test_a_base_that_is_deleted_meanwhile_costs_its_bytes(world: World) -> None:
    """Another writer's retention needs no permission of ours."""

    def rule(seen: Seen) -> None:
        if seen.copied.endswith("1.h5"):
            world.direct.delete("1.h5")

    world.proxy.fault = rule
    assert world.upload().sent == SIZE
    assert world.is_whole()


def test_a_base_that_lies_is_found_out_part_by_part(world: World) -> None:
    """Its digests say that nothing has changed."""
    lie = replace(world.first, blocks=world.second.blocks)
    report = world.upload(base=lie)
    assert report.sent == SIZE
    assert world.is_whole()


def test_a_lie_that_only_the_whole_object_shows_leads_to_one_upload_of_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the service tells nothing of the parts it copies."""

    async def trusting(*_: Any) -> bool:
        return True

    lie = replace(world.first, blocks=world.second.blocks)
    monkeypatch.setattr(S3UploadContext, "agrees", trusting)
    report = world.upload(base=lie)
    assert report.sent == SIZE
    assert world.is_whole()


def test_a_service_that_wants_parts_of_one_size_is_obeyed(world: World) -> None:
    """Everything is sent once; the next checkpoint is cut as the service wants it."""
    refused: list[Seen] = []

    def rule(seen: Seen) -> Answer | None:
        if not is_completion(seen) or refused:
            return None
        refused.append(seen)
        return UNEQUAL

    world.proxy.fault = rule
    assert world.upload().sent == SIZE + BLOCK
    assert world.is_whole()
    before = world.copies()
    report = world.upload("3.h5")
    assert (report.sent, world.copies() - before) == (BLOCK, 5)
    assert world.is_whole("3.h5")


@pytest.mark.parametrize("meanwhile", ["nothing", "the base vanished", "other part sizes"])
def test_a_delta_is_resumed(world: World, meanwhile: str) -> None:
    """What was copied or sent before is not copied or sent again."""
    journal = FileJournal()
    world.proxy.fault = lambda seen: INTERNAL if is_sent(seen) else None
    world.proxy.before = after(world, 2, lambda seen: bool(seen.copied), wait=is_sent)
    with pytest.raises(TransientError):
        world.upload(journal=journal, store=world.open(deadline=1))
    world.proxy.fault, world.proxy.before = lambda _: None, None
    before = world.copies()
    if meanwhile == "the base vanished":
        world.direct.delete("1.h5")
    tuning = {"part_size": 16 * MIB, "concurrency": 3} if meanwhile == "other part sizes" else {}
    report = world.upload(journal=journal, store=world.open(**tuning))
    assert (report.sent, report.reused, world.copies() - before) == (BLOCK, SIZE - BLOCK, 0)
    assert world.is_whole()


def test_a_delta_whose_base_vanished_before_it_was_copied_is_resumed(world: World) -> None:
    """What was to be copied is sent, and what was sent is there."""
    journal = FileJournal()
    world.proxy.fault = lambda seen: INTERNAL if seen.copied else None
    world.proxy.before = after(world, 1, is_sent, wait=lambda seen: bool(seen.copied))
    with pytest.raises(TransientError):
        world.upload(journal=journal, store=world.open(deadline=1))
    world.proxy.fault, world.proxy.before = lambda _: None, None
    world.direct.delete("1.h5")
    report = world.upload(journal=journal)
    assert (report.sent, report.reused) == (SIZE - BLOCK, BLOCK)
    assert world.is_whole()
