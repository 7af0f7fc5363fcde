"""A run from the outside: reading it, keeping it tidy, adding to it, and finding many of them."""

from remote_ckpt.run.run import PATIENCE, Run, Verdict, load_best, load_latest

__all__ = ["PATIENCE", "Run", "Verdict", "load_best", "load_latest"]
