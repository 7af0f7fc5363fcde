"""LocalStack: an emulator of S3 that checks preconditions and checksums, from a virtual environment of its own.

Its dependencies are many and pinned, so they live apart from ours.
"""

from __future__ import annotations

import os
from pathlib import Path

from remote_ckpt.testing.servers._errors import ServerStartError
from remote_ckpt.testing.servers._launch import Command, choose_port
from remote_ckpt.testing.servers._ports import HOST
from remote_ckpt.testing.servers._s3 import Credentials, launch_s3
from remote_ckpt.testing.servers._server import Server

VENV_VARIABLE = "REMOTE_CKPT_LOCALSTACK_VENV"
VENV_DEFAULT = ".venv-localstack"

_NAME = "localstack"
_HINT = (
    f"Install it in a virtual environment of its own ({VENV_DEFAULT} in the working directory, or where "
    f"{VENV_VARIABLE} says): pip install 'localstack-core[runtime]==4.13.1' 'cbor2<6' 'pyopenssl<25'."
)

# Its objects would lie in one fixed folder under /tmp, which one server that deletes a bucket empties for all others.
_MAIN = """
import sys
from localstack.services.s3 import provider
provider.DEFAULT_S3_TMP_DIR = sys.argv.pop()
from localstack.runtime.main import main
main()
"""


def start_localstack(
    *,
    port: int | None = None,
    bucket: str = "checkpoints",
    venv: str | os.PathLike[str] | None = None,
    timeout: float = 120.0,
) -> Server:
    """Start LocalStack with S3 alone. It takes any credentials.

    Args:
        port: Where it listens; a free one by default.
        bucket: A bucket to make.
        venv: Where it is installed; by default what REMOTE_CKPT_LOCALSTACK_VENV says, else `.venv-localstack`.
        timeout: How long it may take to become ready, in seconds.

    Raises:
        ServerStartError: It is not installed, its port is taken, or it was not ready in time.
    """
    folder = Path(venv or os.environ.get(VENV_VARIABLE) or VENV_DEFAULT).absolute()
    python = folder / "bin" / "python"
    if not python.exists():
        raise ServerStartError(_NAME, f"there is no virtual environment {folder}", hint=_HINT)
    chosen = choose_port(_NAME, port)

    def prepare(directory: Path) -> Command:
        return Command([str(python), "-c", _MAIN, str(directory / "objects")], _settings(directory, chosen))

    return launch_s3(_NAME, prepare, port=chosen, bucket=bucket, credentials=Credentials(), timeout=timeout, hint=_HINT)


def _settings(directory: Path, port: int) -> dict[str, str]:
    return {
        "SERVICES": "s3",
        "EAGER_SERVICE_LOADING": "1",
        "GATEWAY_SERVER": "hypercorn",  # the default server listens on all interfaces, whatever it is told
        "GATEWAY_LISTEN": f"{HOST}:{port}",
        "LOCALSTACK_VOLUME_DIR": str(directory / "volume"),
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DNS_ADDRESS": "0",
    }
