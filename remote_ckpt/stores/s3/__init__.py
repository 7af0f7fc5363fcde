"""Runs in S3 and in servers with the S3 API, on s3fs's session."""

from remote_ckpt.stores.s3.store import S3Store

__all__ = ["S3Store"]
