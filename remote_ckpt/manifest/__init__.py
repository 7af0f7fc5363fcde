"""Commits: the compare-and-swap loop to make a checkpoint visible, and the segments to keep the manifest small."""

from remote_ckpt.manifest.committer import Commit, Committer

__all__ = ["Commit", "Committer"]
