"""What all S3 servers share: credentials, how a client reaches one, and when one is ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from remote_ckpt.testing.servers._launch import Command, NotReadyError, launch
from remote_ckpt.testing.servers._ports import HOST
from remote_ckpt.testing.servers._server import Server

REGION = "us-east-1"
_PROBE_KEY = ".ready"


@dataclass(frozen=True)
class Credentials:
    """A key and its secret. The default pair is no secret: it opens only servers that live for one test."""

    key: str = "remote-ckpt"
    secret: str = field(default="remote-ckpt-secret", repr=False)


def launch_s3(
    name: str,
    prepare: Callable[[Path], Command],
    *,
    port: int,
    bucket: str,
    credentials: Credentials,
    timeout: float,
    hint: str,
) -> Server:
    """Start an S3 server that listens on `port`, and make `bucket` in it.

    Raises:
        ServerStartError: As `launch`.
    """
    endpoint = f"http://{HOST}:{port}"
    client = _client(endpoint, credentials)
    try:
        process = launch(name, prepare, lambda: _round_trip(client, bucket), timeout=timeout, hint=hint)
    finally:
        client.close()
    return Server(
        name=name,
        protocol="s3",
        endpoint=endpoint,
        bucket=bucket,
        storage_options=_storage_options(endpoint, credentials),
        environment=_environment(endpoint, credentials),
        process=process,
    )


def _storage_options(endpoint: str, credentials: Credentials) -> dict[str, Any]:
    return {
        "key": credentials.key,
        "secret": credentials.secret,
        "endpoint_url": endpoint,
        "client_kwargs": {"region_name": REGION},
    }


def _environment(endpoint: str, credentials: Credentials) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": credentials.key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,  # the name that botocore reads
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _client(endpoint: str, credentials: Credentials) -> Any:
    return botocore.session.Session().create_client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=credentials.key,
        aws_secret_access_key=credentials.secret,
        config=Config(
            retries={"total_max_attempts": 1},
            connect_timeout=5,
            read_timeout=10,
            s3={"addressing_style": "path"},
            proxies={},
        ),
    )


def _round_trip(client: Any, bucket: str) -> None:
    try:
        _make_bucket(client, bucket)
        client.put_object(Bucket=bucket, Key=_PROBE_KEY, Body=b"ready")
        client.get_object(Bucket=bucket, Key=_PROBE_KEY)["Body"].read()
        client.delete_object(Bucket=bucket, Key=_PROBE_KEY)
    except (BotoCoreError, ClientError, OSError) as error:
        raise NotReadyError(str(error)) from error


def _make_bucket(client: Any, bucket: str) -> None:
    try:
        client.create_bucket(Bucket=bucket)
    except ClientError as error:
        # An earlier round may have made the bucket and failed afterwards.
        if error.response["Error"]["Code"] not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
            raise
