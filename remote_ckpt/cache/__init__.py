"""The local cache of downloaded objects: verified on arrival, resumed after a kill, shared by all processes."""

from remote_ckpt.cache.cached_file import PROMISE, CachedFile
from remote_ckpt.cache.objects import STALE, Cache

__all__ = ["PROMISE", "STALE", "Cache", "CachedFile"]
