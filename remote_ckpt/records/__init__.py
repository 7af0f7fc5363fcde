"""The content of a run: records, their JSON and their signature, read from an untrusted bucket."""

from remote_ckpt.records.records import (
    MAX_BLOCKS,
    MAX_MANIFEST_BYTES,
    Checkpoint,
    HistoryPoint,
    Manifest,
    Segment,
    Series,
    Which,
    fill_in,
    first_problem,
)

__all__ = [
    "MAX_BLOCKS",
    "MAX_MANIFEST_BYTES",
    "Checkpoint",
    "HistoryPoint",
    "Manifest",
    "Segment",
    "Series",
    "Which",
    "fill_in",
    "first_problem",
]
