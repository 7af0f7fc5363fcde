"""Warnings about connections without encryption or certificate checks, logged once for each server and process."""

from __future__ import annotations

import ipaddress
import logging
import os
import threading
from typing import Any
from urllib.parse import urlsplit

from remote_ckpt.location import Location, redact
from remote_ckpt.stores import identity

log = logging.getLogger("remote_ckpt")

_S3_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "FSSPEC_S3_ENDPOINT_URL")
_GCS_VARIABLES = ("STORAGE_EMULATOR_HOST", "FSSPEC_GS_ENDPOINT_URL", "FSSPEC_GCS_ENDPOINT_URL")
_PLAIN = ("http", "ftp", "webdav+http")

_VERIFY = ("verify", "ssl", "verify_ssl", "ssl_verify", "verify_certs", "check_hostname")
_PLAIN_TEXT = (
    "%s is reached without encryption: anybody on the way can read checkpoints, and change them unless the "
    "manifest is signed. Use https:// if the server has it."
)
_UNVERIFIED_TEXT = (
    "%s is believed without a look at its certificate: anybody on the way can be that server, read checkpoints, and "
    "change them unless the manifest is signed. Name the certificate's authority instead of switching this off."
)

_told: set[str] = set()
_guard = threading.Lock()


def warn_once(location: Location, options: dict[str, Any]) -> None:
    """Log a warning if checkpoints would travel unencrypted to another machine.

    Reads the URL, the arguments and the environment; sends nothing. Clients that read more settings call `warn_of`.

    Args:
        location: The run.
        options: fsspec's arguments for its store.
    """
    server = _server(location, options)
    if server is not None:
        warn_of(server)


def warn_of(endpoint: str, *, verified: bool = True) -> None:
    """Log a warning if an endpoint, as resolved by its client, is unencrypted or unverified.

    Args:
        endpoint: The endpoint's URL.
        verified: Whether the client checks the server's certificate.
    """
    if (server := _plain(endpoint)) is not None:
        _warn(server, _PLAIN_TEXT)
    elif not verified:
        _warn(_origin(endpoint), _UNVERIFIED_TEXT)


def warn_of_filesystem(fs: Any) -> None:
    """Log a warning if the server of an fsspec filesystem, or of an inner filesystem, is unencrypted or unverified."""
    settings = getattr(fs, "storage_options", {})
    for setting in identity.of_filesystem(fs).split():
        endpoint = setting.rpartition("=")[2]
        if "://" in endpoint:
            warn_of(endpoint)
    if _unverified(settings):
        _warn(f"{type(fs).__name__}'s server", _UNVERIFIED_TEXT)


def _warn(server: str, text: str) -> None:
    if _is_loopback(server):
        return
    with _guard:  # stores may be opened on several threads: each warning once
        if (server + text) in _told:
            return
        _told.add(server + text)
    log.warning(text, server)


def _unverified(settings: Any) -> bool:
    """Return whether an argument, at any depth, switches the certificate check off."""
    if not isinstance(settings, dict):
        return False
    return any((name in _VERIFY and value is False) or _unverified(value) for name, value in settings.items())


def _origin(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{(parts.netloc or endpoint).rpartition('@')[2]}"


def _server(location: Location, options: dict[str, Any]) -> str | None:
    """Return scheme, host and port of an unencrypted endpoint; None if encrypted, or if no endpoint is named."""
    protocol = location.protocol
    for link in location.root.split("::"):  # chained URLs: a cache or an archive may precede the server
        if link.partition("://")[0] in _PLAIN:
            return _plain(link)
    nested = options.get("client_kwargs")
    nested = nested if isinstance(nested, dict) else {}
    told = [options.get("endpoint_url"), nested.get("endpoint_url")]
    if protocol in ("s3", "s3a"):
        told += [os.environ.get(name) for name in _S3_VARIABLES]
        if options.get("use_ssl") is False and not any(told):
            return "http://s3.amazonaws.com"
    elif protocol in ("gs", "gcs"):
        told += [os.environ.get(name) for name in _GCS_VARIABLES]
    return _plain(str(next((url for url in told if url), "")))


def _plain(url: str) -> str | None:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None  # a malformed URL: the client reports the error when it connects
    if not url or parts.scheme.lower() not in _PLAIN or not host:
        return None
    shown = f"[{host}]" if ":" in host else host
    return redact(f"{parts.scheme.lower()}://{shown}{f':{port}' if port else ''}")


def _is_loopback(server: str) -> bool:
    host = urlsplit(server).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
