"""One suite, every store."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import HANG

from remote_ckpt.location import Location
from remote_ckpt.stores import MIB, ObjectStore, Transfer, open_store
from remote_ckpt.testing.conformance import StoreConformance
from remote_ckpt.testing.servers import MANY_WRITERS, Server

OpenRun = Callable[[str], ObjectStore]
TRANSFER = Transfer(part_size=5 * MIB, deadline=HANG)


class TestLocal(StoreConformance):
    @pytest.fixture
    def open_run(self, tmp_path: Path) -> OpenRun:
        """Runs in a local folder."""
        return lambda name: open_store(Location.parse(str(tmp_path / "bucket" / name)), transfer=TRANSFER)


class TestMemory(StoreConformance):
    @pytest.fixture
    def open_run(self) -> OpenRun:
        """Runs on a filesystem of fsspec's own."""
        root = f"memory://{uuid.uuid4().hex}"
        return lambda name: open_store(Location.parse(f"{root}/{name}"), transfer=TRANSFER)


class OnServer(StoreConformance):
    """Runs in a bucket of a server that the subclass names."""

    server_name: str

    @property
    def atomic(self) -> bool:
        """As the catalogue says; on a server that ignores conditions our own lock holds within a process."""
        return self.server_name in MANY_WRITERS

    @pytest.fixture
    def open_run(self, get_server: Callable[[str], Server], prefix: str) -> OpenRun:
        """Runs under a prefix of this test's own."""
        server = get_server(self.server_name)
        return lambda name: open_store(
            Location.parse(server.url(f"{prefix}/{name}")), dict(server.storage_options), transfer=TRANSFER
        )


class TestSeaweedFS(OnServer):
    server_name = "seaweedfs"


class TestLocalStack(OnServer):
    server_name = "localstack"


class TestMoto(OnServer):
    server_name = "moto"


class TestMinistack(OnServer):
    server_name = "ministack"


class TestRclone(OnServer):
    """A server that ignores preconditions: after a probe the threads of one process are safe all the same."""

    server_name = "rclone"
    atomic = True

    @pytest.fixture
    def store(self, open_run: OpenRun) -> ObjectStore:
        """A store that has been probed."""
        store = open_run("run")
        assert not store.probe().many_writers
        return store


class TestFakeGcs(OnServer):
    server_name = "fake_gcs"
