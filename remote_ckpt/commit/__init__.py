"""What makes a checkpoint visible: the compare-and-swap loop, and the segments that keep the manifest small."""

from remote_ckpt.commit.loop import Commit, Committer

__all__ = ["Commit", "Committer"]
