"""Keras's `ModelCheckpoint` for a bucket: the callback, and the features beyond saving. All modules need Keras."""

from remote_ckpt.callback.model_checkpoint import RemoteModelCheckpoint

__all__ = ["RemoteModelCheckpoint"]
