"""Counters of saving: time, bytes and failures."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from remote_ckpt.formatting import human_bytes as human_bytes
from remote_ckpt.formatting import human_time
from remote_ckpt.stores.base import TransferReport


@dataclass
class Stats:
    """Counters of one writer; may be read from any thread.

    Attributes:
        saves: Checkpoints captured.
        stall_seconds: How long the training thread was held up, one number for each capture.
        durable_seconds: Seconds from capture to commit, one number for each checkpoint of this process in the bucket.
        publish_seconds: Seconds of upload and commit, without the time in the queue; one number for each checkpoint
            published, those of earlier processes included.
        bytes_written: Bytes of the files written to the spool.
        superseded: Checkpoints given up because a better one took their place (`save_best_only`).
        dropped: Checkpoints given up because the spool was full.
        failures: Failed attempts to write or publish a checkpoint, or to renew an alias. What failed to be published is
            tried again later, unless it was refused for good.
        pending: Checkpoints captured and not yet in the bucket, at the last save, flush or close.
        transfer: Bytes sent and reused, and retries.
    """

    saves: int = 0
    stall_seconds: list[float] = field(default_factory=list)
    durable_seconds: list[float] = field(default_factory=list)
    publish_seconds: list[float] = field(default_factory=list)
    bytes_written: int = 0
    superseded: int = 0
    dropped: int = 0
    failures: int = 0
    pending: int = 0
    transfer: TransferReport = field(default_factory=TransferReport)

    @property
    def bytes_sent(self) -> int:
        """Bytes sent over the network, repeated parts included."""
        return self.transfer.sent

    @property
    def bytes_reused(self) -> int:
        """Bytes not sent, because the bucket had them already."""
        return self.transfer.reused

    @property
    def retries(self) -> int:
        """Requests made again after a failure."""
        return self.transfer.retries

    def summary(self) -> str:
        """Return a summary in a single line, for people."""
        if not self.saves:
            return "no checkpoint was due"
        parts = [f"{self.saves} {'save' if self.saves == 1 else 'saves'}"]
        stalls = self.stall_seconds
        parts.append(f"training waited {human_time(median(stalls))} (median), {human_time(max(stalls))} (worst)")
        parts.append(f"{human_bytes(self.bytes_sent)} sent")
        if self.bytes_reused:
            parts.append(f"{human_bytes(self.bytes_reused)} reused")
        if self.durable_seconds:
            parts.append(f"in the bucket after {human_time(median(self.durable_seconds))} (median)")
        counts = {name: getattr(self, name) for name in ("superseded", "dropped", "failures", "pending")}
        parts += [f"{count} {name}" for name, count in counts.items() if count]
        return ", ".join(parts)
