"""A run from the outside: read checkpoints, add and delete checkpoints, and find many runs below a prefix."""

from remote_ckpt.run.run import PATIENCE, Run, Verdict, load_best, load_latest

__all__ = ["PATIENCE", "Run", "Verdict", "load_best", "load_latest"]
