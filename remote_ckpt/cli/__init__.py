"""The command line, `remote-ckpt`: one module per command."""

from remote_ckpt.cli._app import main

__all__ = ["main"]
