"""Servers that many tests share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from remote_ckpt.testing.servers._catalog import start
from remote_ckpt.testing.servers._errors import ServerStartError
from remote_ckpt.testing.servers._server import Server


class ServerPool:
    """Starts each server when it is first asked for, and stops all of them at the end of its `with` block.

    For one thread.
    """

    def __init__(self, starter: Callable[[str], Server] = start) -> None:
        """Make an empty pool that calls `starter` with a server's name."""
        self._starter = starter
        self._started: dict[str, Server | ServerStartError] = {}
        self._running = ExitStack()

    def get(self, name: str) -> Server:
        """Return the server of this name; the same one each time.

        Raises:
            ServerStartError: It could not be started. It is not tried again: the same error comes each time.
        """
        if name not in self._started:
            try:
                self._started[name] = self._running.enter_context(self._starter(name))
            except ServerStartError as error:
                self._started[name] = error
        outcome = self._started[name]
        if isinstance(outcome, ServerStartError):
            raise outcome
        return outcome

    def stop(self) -> None:
        """Stop every server that was started. Repeating changes nothing."""
        self._running.close()

    def __enter__(self) -> ServerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
