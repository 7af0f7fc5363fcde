"""Preemption notices (the machine will be taken away): from signals and from the clouds' metadata servers."""

from remote_ckpt.preemption.guard import PreemptionGuard

__all__ = ["PreemptionGuard"]
