"""Names of servers, as resolved by their own clients: URLs with equal names are treated as on the same server.

A server that is reached under two host names has two names. A name is written to disk and shown: it never holds a
user, a password, a query, or a setting that may be a secret.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from fsspec.asyn import sync
from fsspec.spec import AbstractFileSystem

# All endpoints of S3 in a partition lead to the same buckets, whatever the region: a bucket's name is unique there. Not
# every host below amazonaws.com is S3: machines (compute) and load balancers (elb) may run any server.
_AWS = re.compile(
    r"(?:[a-z0-9.-]+\.)?s3(?:-[a-z0-9-]+|express-[a-z0-9-]+)?(?:\.[a-z0-9-]+){0,3}"
    r"\.(?:amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|api\.aws|api\.amazonwebservices\.com\.cn|api\.amazonwebservices\.eu)"
)
_OTHERS = re.compile(r"\.(?:compute|compute-1|elb|execute-api)\.")
_PORTS = {"http": 80, "https": 443, "ftp": 21}

_SETTINGS = (
    *("host", "hostname", "port", "endpoint", "endpoint_url", "url", "base_url", "account_name", "account_url"),
    *("account_host", "org", "repo", "instance", "namenode"),
)
"""Attributes and arguments in which filesystems keep their server; no others are read."""


def of_url(url: str) -> str:
    """Return the name of a server from a URL: scheme, host, port and path, normalised."""
    parts = urlsplit(url if "://" in url else f"//{url}")
    host = (parts.hostname or "").lower()
    try:
        port = parts.port
    except ValueError:  # not a number; the client reports the wrong port when it connects
        port = None
    shown = f"[{host}]" if ":" in host else host
    where = shown if port in (None, _PORTS.get(parts.scheme.lower())) else f"{shown}:{port}"
    scheme = f"{parts.scheme.lower()}://" if parts.scheme else ""
    return f"{scheme}{where}{parts.path.rstrip('/')}"


def of_s3(endpoint: str, partition: str) -> str:
    """Return the name of an S3 server from botocore's endpoint; for AWS the name is the partition ("aws", "aws-cn")."""
    host = (urlsplit(endpoint).hostname or "").lower()
    if _AWS.fullmatch(host) and not _OTHERS.search(host):
        return partition
    return of_url(endpoint)


def of_filesystem(fs: Any) -> str:
    """Return the name of an fsspec filesystem's server; empty if the settings name no server.

    A filesystem around another filesystem (a cache, a folder) has the name of the inner one added. No request goes to
    the server.
    """
    spoken = fs.protocol if isinstance(fs.protocol, tuple | list) else (fs.protocol,)
    if "s3" in spoken:  # inside a cache; only the client has read the endpoint from profiles and services
        client = sync(fs.loop, fs.set_session)
        return of_s3(client.meta.endpoint_url, client.meta.partition)
    if "gs" in spoken:
        return of_url(fs._location)
    attributes = object.__getattribute__(fs, "__dict__")  # a property may ask the server, a cache passes others on
    settings = {**getattr(fs, "storage_options", {}), **attributes}
    inner, told = settings.get("fs"), list[str]()
    for name in _SETTINGS:
        value = settings.get(name)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
            told.append(f"{name}={of_url(value) if isinstance(value, str) else value}")
    nested = of_filesystem(inner) if isinstance(inner, AbstractFileSystem) else ""
    return " ".join([*told, nested]).strip()
