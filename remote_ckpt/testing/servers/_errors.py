"""The one error of this package."""

from __future__ import annotations

from remote_ckpt.errors import RemoteCkptError


class ServerStartError(RemoteCkptError):
    """A server could not be started. Nothing of it is left behind.

    The message says what failed, how to install the server, and how its log ended.
    """

    def __init__(self, name: str, reason: str, *, hint: str = "", log: str = "") -> None:
        message = f"The server {name!r} did not start: {reason}."
        if hint:
            message += f" {hint}"
        if log:
            message += f"\nIts log ended with:\n{log}"
        super().__init__(message)
