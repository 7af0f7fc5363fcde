"""What every test finds: an environment free of the user's own settings, and servers that start when asked for."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote_ckpt.errors import RemoteCkptError
from remote_ckpt.saving import exit_drain
from remote_ckpt.testing.servers import Server, ServerPool, ServerStartError
from remote_ckpt.testing.servers.localstack import VENV_DEFAULT, VENV_VARIABLE

_FOREIGN = re.compile(r"AWS_|BOTO|GOOGLE_|GCLOUD_|CLOUDSDK_|FSSPEC_|STORAGE_EMULATOR_HOST|.*_PROXY$", re.IGNORECASE)


def pytest_configure(config: pytest.Config) -> None:
    """Make the environment hermetic before any test module is imported: fsspec, gcsfs and Keras read it then."""
    directory = Path(tempfile.mkdtemp(prefix="remote_ckpt-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))
    environment = pytest.MonkeyPatch()
    config.add_cleanup(environment.undo)
    for name in [name for name in os.environ if _FOREIGN.match(name)]:
        environment.delenv(name)
    for name in ("XDG_CACHE_HOME", "KERAS_HOME", "CLOUDSDK_CONFIG", "FSSPEC_CONFIG_DIR"):
        environment.setenv(name, str(directory / name.lower()))
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "BOTO_CONFIG"):
        environment.setenv(name, os.devnull)
    for name in ("AWS_EC2_METADATA_DISABLED", "NO_GCE_CHECK"):
        environment.setenv(name, "true")
    environment.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    environment.setenv("TF_CPP_MIN_LOG_LEVEL", os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"))
    environment.setenv(VENV_VARIABLE, os.environ.get(VENV_VARIABLE) or str(config.rootpath / VENV_DEFAULT))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test that asks for a server, by whichever fixture: `scripts/test quick` leaves them out."""
    for item in items:
        if "get_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.server)


@pytest.fixture(autouse=True)
def own_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The spool and the download cache of one test, empty at its start; writers it left open do not outlive it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("REMOTE_CKPT_SPOOL", str(tmp_path / "spool"))
    yield tmp_path / "spool"
    for work in list(exit_drain._open):
        with contextlib.suppress(RemoteCkptError):
            work.close(timeout=0.0)


@pytest.fixture(scope="session")
def get_server() -> Iterator[Callable[[str], Server]]:
    """A function from a server's name to that server, started once a session and shared by its tests.

    A server that cannot be started skips the test with its reason; in CI and in `scripts/test` it fails it.
    """
    with ServerPool() as pool:

        def get(name: str) -> Server:
            try:
                return pool.get(name)
            except ServerStartError as error:
                reason = str(error)
            if os.environ.get("CI") == "true" or os.environ.get("REMOTE_CKPT_REQUIRE_SERVERS") == "1":
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)

        yield get


@pytest.fixture
def server(request: pytest.FixtureRequest, get_server: Callable[[str], Server]) -> Server:
    """A shared server; its name comes from `@pytest.mark.parametrize("server", [...], indirect=True)`."""
    return get_server(request.param)


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A key prefix that no other test uses, without slashes at its ends."""
    return f"{re.sub(r'[^a-zA-Z0-9]+', '-', request.node.name).strip('-')[:60]}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def fast() -> Iterator[Path]:
    """A folder in memory where there is one: what is tested here is not the disk."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() and os.access(memory, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def quiet() -> Iterator[None]:
    """No warnings: where thousands are right, keeping them takes longer than the rest."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)
