"""Keras's `ModelCheckpoint`, to a bucket: the callback, and what it does beyond saving. All of this knows Keras."""

from remote_ckpt.callback.model_checkpoint import RemoteModelCheckpoint

__all__ = ["RemoteModelCheckpoint"]
