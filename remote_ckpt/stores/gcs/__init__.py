"""Runs in Google Cloud Storage, on gcsfs's session."""

from remote_ckpt.stores.gcs.store import GcsStore

__all__ = ["GcsStore"]
