"""A running server, as a user of one sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from remote_ckpt.testing.servers._process import ServerProcess


@dataclass(frozen=True)
class Server:
    """A running object store with one bucket, ready for use. As a context manager, it stops at the end.

    Attributes:
        name: Which server, as in `ALL`.
        protocol: "s3" or "gs".
        endpoint: Its address, "http://127.0.0.1:PORT".
        bucket: A bucket that exists.
        storage_options: What fsspec needs to reach it.
        environment: The same as environment variables, for a subprocess.
    """

    name: str
    protocol: str
    endpoint: str
    bucket: str
    storage_options: dict[str, Any] = field(repr=False)
    environment: dict[str, str] = field(repr=False)
    process: ServerProcess = field(repr=False)

    def url(self, path: str) -> str:
        """Return the fsspec URL of `path` in the bucket."""
        return f"{self.protocol}://{self.bucket}/{path}"

    def stop(self) -> None:
        """End the server, wait for it, and remove everything it kept. Repeating changes nothing.

        Raises:
            subprocess.TimeoutExpired: It did not end.
        """
        self.process.stop()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
