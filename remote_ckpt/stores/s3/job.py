"""An upload to S3: what it needs, and how bytes are sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from remote_ckpt.stores.checksums import encode
from remote_ckpt.stores.engine.body import PartBody
from remote_ckpt.stores.engine.job import Job
from remote_ckpt.stores.s3 import objects
from remote_ckpt.stores.s3.session import S3Session


@dataclass(kw_only=True)
class S3Job(Job):
    """The upload of one file to one key of S3."""

    session: S3Session

    async def send(self, method: str, body: PartBody, crc: int, **arguments: Any) -> dict[str, Any]:
        """Send bytes in one request, once."""
        request = objects.send(self.session, method, "create", self.key, body, encode(crc), **arguments)
        return await self.counted(request, body)

    async def agrees(self, answer: dict[str, Any], body: PartBody, crc: int) -> bool | None:
        """Return whether the service's answer agrees with the bytes; None when it cannot be told."""
        return await self.disk.do(lambda: objects.agrees(answer, body, encode(crc)))
