"""Downloads that are broken off: histories, against a real server behind a proxy that counts what it hands out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faulty_proxy import CUT_BEFORE, CUT_BODY, FaultyProxy, Seen, faulty_proxy
from records import seal
from waiting import HANG

from remote_ckpt.digests import digest_file
from remote_ckpt.errors import CorruptCheckpointError, TransientError
from remote_ckpt.location import Location
from remote_ckpt.manifest import Committer
from remote_ckpt.run import Run
from remote_ckpt.saving.publisher import Publisher
from remote_ckpt.saving.spool import Spool
from remote_ckpt.stores import MIB, MemoryJournal, Transfer, TransferReport, open_store
from remote_ckpt.testing.servers import Server

KEY = "w-01.weights.h5"
PROGRAMS = Path(__file__).parents[1] / "programs.py"
SIZE = 24 * MIB + 11
PART = 2 * MIB
WIDTH = 4
WINDOW = WIDTH * PART
SMALL = 64 * 1024  # the manifest, and what a listing says
TUNING: dict[str, Any] = {"part_size": PART, "concurrency": WIDTH, "deadline": HANG}


@dataclass
class World:
    """A run that holds one checkpoint, behind a proxy."""

    proxy: FaultyProxy
    server: Server
    url: str
    data: bytes
    cache: Path

    @property
    def options(self) -> dict[str, Any]:
        return {**self.server.storage_options, "endpoint_url": self.proxy.endpoint}

    def pull(self, **tuning: Any) -> Path:
        transfer = Transfer(**{**TUNING, **tuning})
        run = Run(self.url, storage_options=self.options, cache_dir=self.cache, transfer=transfer)
        try:
            return run.pull()
        finally:
            run.store.close()

    def start(self) -> subprocess.Popen[str]:
        """Pull in a process of its own."""
        given = [json.dumps(self.options), str(self.cache), json.dumps(TUNING)]
        command = [sys.executable, str(PROGRAMS), "pull", self.url, *given]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def is_range(self, seen: Seen) -> bool:
        return (
            seen.method == "GET" and ".h5" in seen.path and (self.server.protocol == "s3" or "alt=media" in seen.path)
        )

    def break_after(self, ranges: int) -> None:
        """Cut every connection once so many ranges have been asked for."""
        asked: list[Seen] = []

        def rule(seen: Seen) -> Any:
            if self.is_range(seen):
                asked.append(seen)
                return CUT_BEFORE if len(asked) > ranges else None
            return None

        self.proxy.fault = rule

    def break_off(self) -> int:
        """Pull until the connection breaks for good; return how many bytes came."""
        self.break_after(6)
        before = self.proxy.given
        with pytest.raises(TransientError):
            self.pull(deadline=1)
        self.proxy.fault = lambda _: None
        return self.proxy.given - before

    def replace(self, data: bytes) -> None:
        """Put another object in the checkpoint's place, uploaded in parts of another size."""
        source = self.cache.parent / "source"
        source.write_bytes(data)
        options = dict(self.server.storage_options)
        store = open_store(Location.parse(self.url), options, transfer=Transfer(part_size=6 * MIB))
        store.delete(KEY)
        store.upload(KEY, source, digests=digest_file(source), journal=MemoryJournal(), report=TransferReport())
        store.close()

    @property
    def partial(self) -> Path:
        return next(self.cache.glob("*.partial"))

    def is_whole(self, path: Path) -> bool:
        return path.read_bytes() == self.data


@pytest.fixture(params=["seaweedfs", "fake_gcs"])
def world(
    request: pytest.FixtureRequest, get_server: Callable[[str], Server], prefix: str, tmp_path: Path
) -> Iterator[World]:
    """A world of S3, and one of GCS."""
    server = get_server(request.param)
    location = Location.parse(server.url(prefix))
    store = open_store(location, dict(server.storage_options))
    data = os.urandom(SIZE)
    spool = Spool(location, tmp_path / "spool")
    Publisher(store, location, Committer(store, location)).publish(seal(spool, 1, 0.5, data=data), TransferReport())
    spool.close()
    store.close()
    with faulty_proxy(server.endpoint) as proxy:
        yield World(proxy, server, server.url(prefix), data, tmp_path / "objects")


@pytest.mark.slow
def test_after_kill_9_only_the_rest_is_fetched(world: World) -> None:
    """What the killed process had written is asked for by nobody again."""
    world.proxy.rate = 1.5e6
    process = world.start()
    assert process.stdout is not None
    came = 0
    for line in process.stdout:
        came = int(line.removeprefix("came "))
        if came >= SIZE // 3:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=HANG)
    assert process.returncode == -signal.SIGKILL
    assert not list(world.cache.glob("*.h5"))
    first, world.proxy.rate = world.proxy.given, None
    path = world.pull()
    second = world.proxy.given - first
    assert world.is_whole(path)
    assert second <= SIZE - came + SMALL
    assert first + second <= SIZE + WINDOW + 2 * SMALL
    assert not list(world.cache.glob("*.partial*"))


def test_after_a_broken_connection_only_the_rest_is_fetched(world: World) -> None:
    """Also when nothing came for as long as one tries, and another call goes on."""
    first = world.break_off()
    assert first >= 2 * PART
    before = world.proxy.given
    assert world.is_whole(world.pull())
    assert first + world.proxy.given - before <= SIZE + WINDOW + 2 * SMALL


def test_a_range_that_breaks_goes_on_where_it_broke(world: World) -> None:
    """Half a range is not fetched twice."""
    broken: list[Seen] = []

    def rule(seen: Seen) -> Any:
        if world.is_range(seen) and len(broken) < WIDTH:
            broken.append(seen)
            return CUT_BODY
        return None

    world.proxy.fault = rule
    assert world.is_whole(world.pull())
    assert len(broken) == WIDTH
    assert world.proxy.given <= SIZE + WIDTH * PART // 2 + SMALL


def test_two_processes_download_once(world: World) -> None:
    """The second waits for the first, and both have the file."""
    world.proxy.rate = 4e6
    processes = [world.start() for _ in range(2)]
    told = [process.communicate(timeout=HANG) for process in processes]
    assert all("pulled" in out for out, _ in told), told
    assert world.proxy.given <= SIZE + 2 * SMALL


def test_an_object_of_another_version_is_fetched_from_the_beginning(world: World) -> None:
    """Even if its bytes are the same: nobody knows that before the end."""
    world.break_off()
    world.replace(world.data)
    before = world.proxy.given
    assert world.is_whole(world.pull())
    assert world.proxy.given - before >= SIZE


def test_rot_in_what_was_kept_costs_a_download_and_not_the_checkpoint(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Only bytes that were fetched in one go are believed to be the store's."""
    world.break_off()
    with world.partial.open("r+b") as file:
        file.write(bytes(10))
    before = world.proxy.given
    assert world.is_whole(world.pull())
    assert world.proxy.given - before >= SIZE
    assert "beginning anew" in caplog.text


def test_an_object_that_is_not_what_was_saved_is_told_and_not_kept(world: World) -> None:
    """Though the first part of it came from an earlier call."""
    world.replace(bytes(10) + world.data[10:])
    world.break_off()
    with pytest.raises(CorruptCheckpointError, match="not what was saved"):
        world.pull()
    assert not [path for path in world.cache.iterdir() if path.suffix != ".lock"]
