"""Runs in S3 and in what speaks its language, on s3fs's session."""

from remote_ckpt.stores.s3.store import S3Store

__all__ = ["S3Store"]
