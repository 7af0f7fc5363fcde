"""moto: an emulator of S3 in Python; the quickest to start, the least strict, for one writer at a time."""

from __future__ import annotations

from pathlib import Path

from remote_ckpt.testing.servers._launch import Command, choose_port, find_program
from remote_ckpt.testing.servers._ports import HOST
from remote_ckpt.testing.servers._s3 import Credentials, launch_s3
from remote_ckpt.testing.servers._server import Server

_NAME = "moto"
_HINT = "Install it with: pip install 'moto[server,s3]'."


def start_moto(*, port: int | None = None, bucket: str = "checkpoints", timeout: float = 60.0) -> Server:
    """Start moto. It takes any credentials, wrong checksums, and a stale If-Match where an upload is completed.

    For one writer only: it checks a condition, and writes afterwards without a lock. Of two writers at the same instant
    both may be told that they won.

    Args:
        port: Where it listens; a free one by default.
        bucket: A bucket to make.
        timeout: How long it may take to become ready, in seconds.

    Raises:
        ServerStartError: It is not installed, its port is taken, or it was not ready in time.
    """
    program = find_program(_NAME, "moto_server", hint=_HINT)
    chosen = choose_port(_NAME, port)

    def prepare(directory: Path) -> Command:  # noqa: ARG001 - it keeps everything in memory
        return Command([program, "-H", HOST, "-p", str(chosen)])

    return launch_s3(_NAME, prepare, port=chosen, bucket=bucket, credentials=Credentials(), timeout=timeout, hint=_HINT)
