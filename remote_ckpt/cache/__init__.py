"""What was downloaded to this machine: verified while it comes, resumed after a kill, shared by its processes."""

from remote_ckpt.cache.cached_file import PROMISE, CachedFile
from remote_ckpt.cache.objects import STALE, Cache

__all__ = ["PROMISE", "STALE", "Cache", "CachedFile"]
