"""The servers by name."""

from __future__ import annotations

from collections.abc import Callable

from remote_ckpt.testing.servers._errors import ServerStartError
from remote_ckpt.testing.servers._server import Server
from remote_ckpt.testing.servers.fake_gcs import start_fake_gcs
from remote_ckpt.testing.servers.localstack import start_localstack
from remote_ckpt.testing.servers.ministack import start_ministack
from remote_ckpt.testing.servers.moto import start_moto
from remote_ckpt.testing.servers.rclone import start_rclone
from remote_ckpt.testing.servers.seaweedfs import start_seaweedfs

_STARTERS: dict[str, Callable[[], Server]] = {
    "seaweedfs": start_seaweedfs,
    "localstack": start_localstack,
    "moto": start_moto,
    "fake_gcs": start_fake_gcs,
    "rclone": start_rclone,
    "ministack": start_ministack,
}

ALL: tuple[str, ...] = tuple(_STARTERS)

MANY_WRITERS = ("seaweedfs", "localstack", "fake_gcs", "ministack")
"""Whose conditional writes are atomic, so that a race of several writers proves something there.

LocalStack checks and writes within one lock; MiniStack in one turn of its event loop; SeaweedFS and fake-gcs-server
gave exactly one winner in each of 200 to 400 races of eight, and lost no increment. moto checks first and writes
afterwards, without a lock (`S3Response.put_object`): it passes such races too, but for one in thousands.
"""


def start(name: str) -> Server:
    """Start the server of this name (one of `ALL`) with its defaults.

    Raises:
        ServerStartError: There is no such server, or it could not be started.
    """
    if name not in _STARTERS:
        raise ServerStartError(name, "it is not one we know", hint=f"Known are: {', '.join(ALL)}.")
    return _STARTERS[name]()
