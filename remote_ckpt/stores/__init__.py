"""Object stores: local folders, S3, GCS, and the other filesystems of fsspec."""

from remote_ckpt.stores.base import (
    BLOCK,
    MIB,
    Capabilities,
    DeltaBase,
    Digests,
    Expect,
    Journal,
    Landing,
    MemoryJournal,
    ObjectInfo,
    ObjectStore,
    Progress,
    Transfer,
    TransferReport,
    Version,
)
from remote_ckpt.stores.opening import open_store, require_known

__all__ = [
    "BLOCK",
    "MIB",
    "Capabilities",
    "DeltaBase",
    "Digests",
    "Expect",
    "Journal",
    "Landing",
    "MemoryJournal",
    "ObjectInfo",
    "ObjectStore",
    "Progress",
    "Transfer",
    "TransferReport",
    "Version",
    "open_store",
    "require_known",
]
