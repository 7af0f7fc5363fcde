"""Opening of the store for a run's location."""

from __future__ import annotations

import difflib
from typing import Any

import fsspec
from fsspec.registry import known_implementations

from remote_ckpt.errors import LocationError
from remote_ckpt.location import Location
from remote_ckpt.stores import insecure_endpoint
from remote_ckpt.stores.base import ObjectStore, Transfer
from remote_ckpt.stores.retrying import Retrying

_USUAL = "s3://, gs://, memory://, or a plain path"
_USUAL_PROTOCOLS = ("s3", "gs", "az", "abfs", "http", "https", "sftp", "hdfs", "file", "memory")


def open_store(
    location: Location, storage_options: dict[str, Any] | None = None, *, transfer: Transfer | None = None
) -> ObjectStore:
    """Return the store of a run; its verbs retry within `transfer.deadline`.

    No request goes to a bucket of S3 or GCS yet; GCS's client looks for credentials, and some filesystems of fsspec
    (sftp, ftp) connect at once. Logs a warning, once for each server, if the connection is not encrypted.

    Args:
        location: The run.
        storage_options: The filesystem's own arguments, as everywhere with fsspec; they win over our settings.
        transfer: Tuning of uploads and downloads.

    Raises:
        LocationError: No such kind of store, or the package for it is not installed.
        StoreError: The client cannot be made: its settings are wrong, or it connects at once and failed.
    """
    transfer = transfer or Transfer()
    require_known(location)
    insecure_endpoint.warn_once(location, storage_options or {})
    return Retrying(_adapter(location, dict(storage_options or {}), transfer), transfer.retry)


def _adapter(location: Location, options: dict[str, Any], transfer: Transfer) -> ObjectStore:
    """Return the adapter for a location; import only this adapter: s3fs and gcsfs take a second each."""
    if location.protocol in ("file", "local"):
        from remote_ckpt.stores.local import LocalStore

        return LocalStore(location.root, url=location.name)
    if location.protocol in ("s3", "s3a"):
        from remote_ckpt.stores.s3 import S3Store

        return S3Store(location, options, transfer=transfer)
    if location.protocol in ("gs", "gcs"):
        from remote_ckpt.stores.gcs import GcsStore

        return GcsStore(location, options, transfer=transfer)
    _require_installed(location.protocol)
    from remote_ckpt.stores.generic import GenericStore

    return GenericStore(location, options)


def require_known(location: Location) -> None:
    """Raise an error if no filesystem is known for a run's URL; import none.

    Raises:
        LocationError: A protocol of the URL is unknown; the message suggests a similar protocol.
    """
    known = {*known_implementations, *fsspec.registry, "file", "local"}
    for protocol in location.root.split("://")[0].split("::") if location.protocol != "file" else ():
        if protocol in known:
            continue
        close = difflib.get_close_matches(protocol, _USUAL_PROTOCOLS, n=1, cutoff=0.5)
        likely = f" Did you mean '{close[0]}://'?" if close else ""
        raise LocationError(f"Nothing is known to keep '{protocol}://' URLs.{likely} Use {_USUAL}.")


def _require_installed(protocol: str) -> None:
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as exc:
        hint = known_implementations.get(protocol, {}).get("err", str(exc))
        raise LocationError(f"A package for '{protocol}://' URLs is missing: {hint}.") from exc
