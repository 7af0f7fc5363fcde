"""A run from the outside: read checkpoints, add and delete checkpoints, and find many runs below a prefix."""

from remote_ckpt.run.run import READ_TIMEOUT, Run, Verdict, load_best, load_latest

__all__ = ["READ_TIMEOUT", "Run", "Verdict", "load_best", "load_latest"]
