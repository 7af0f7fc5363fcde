"""One suite, every store."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_ckpt.location import Location
from remote_ckpt.stores import MIB, ObjectStore, Transfer, open_store
from remote_ckpt.testing.conformance import StoreConformance

OpenRun = Callable[[str], ObjectStore]
TRANSFER = Transfer(part_size=5 * MIB, deadline=30)


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
