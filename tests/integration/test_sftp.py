"""The same suite on a filesystem of fsspec's that crosses a network and knows no conditions: SFTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sftp_server import sftp_server

from remote_ckpt.location import Location
from remote_ckpt.stores import MIB, ObjectStore, Transfer, open_store
from remote_ckpt.testing.conformance import StoreConformance


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with sftp_server(tmp_path_factory.mktemp("served")) as options:
        yield options


class TestSftp(StoreConformance):
    @pytest.fixture
    def open_run(self, options: dict[str, Any], prefix: str) -> Callable[[str], ObjectStore]:
        """Runs in a folder of this test's own."""
        transfer = Transfer(part_size=5 * MIB, deadline=30)
        return lambda name: open_store(Location.parse(f"sftp://127.0.0.1/{prefix}/{name}"), options, transfer=transfer)
