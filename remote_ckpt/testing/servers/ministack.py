"""MiniStack: a light emulator of S3 with every precondition right."""

from __future__ import annotations

from pathlib import Path

from remote_ckpt.testing.servers._launch import Command, choose_port, find_program
from remote_ckpt.testing.servers._ports import HOST
from remote_ckpt.testing.servers._s3 import Credentials, launch_s3
from remote_ckpt.testing.servers._server import Server

_NAME = "ministack"
# From 1.5 on it asks for one certain release of botocore, and s3fs for another.
_HINT = "Install it with: pip install 'ministack<1.5'."

# Its listeners for MQTT and SFTP have fixed ports and heed no BIND_HOST.
_NOTHING_BUT_S3 = {"SERVICES": "s3", "IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0"}


def start_ministack(*, port: int | None = None, bucket: str = "checkpoints", timeout: float = 60.0) -> Server:
    """Start MiniStack. It takes any credentials, and parts of any size.

    Args:
        port: Where it listens; a free one by default.
        bucket: A bucket to make.
        timeout: How long it may take to become ready, in seconds.

    Raises:
        ServerStartError: It is not installed, its port is taken, or it was not ready in time.
    """
    program = find_program(_NAME, "ministack", hint=_HINT)
    chosen = choose_port(_NAME, port)

    def prepare(directory: Path) -> Command:  # noqa: ARG001 - it keeps everything in memory
        return Command([program], {"GATEWAY_PORT": str(chosen), "BIND_HOST": HOST, **_NOTHING_BUT_S3})

    return launch_s3(_NAME, prepare, port=chosen, bucket=bucket, credentials=Credentials(), timeout=timeout, hint=_HINT)
