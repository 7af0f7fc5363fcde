"""The context of an upload to S3, and the sending of bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from remote_ckpt.stores.checksums import encode
from remote_ckpt.stores.s3 import objects
from remote_ckpt.stores.s3.session import S3Session
from remote_ckpt.stores.transfer.request_body import PartBody
from remote_ckpt.stores.transfer.upload_context import UploadContext


@dataclass(kw_only=True)
class S3UploadContext(UploadContext):
    """The upload of a file to a key of S3."""

    session: S3Session

    async def send(self, method: str, body: PartBody, crc: int, **arguments: Any) -> dict[str, Any]:
        """Send bytes in a single request; never repeat the request."""
        request = objects.send(self.session, method, "create", self.key, body, encode(crc), **arguments)
        return await self.counted(request, body)

    async def agrees(self, answer: dict[str, Any], body: PartBody, crc: int) -> bool | None:
        """Compare the checksum in the service's answer with the bytes; return None if the answer proves nothing."""
        return await self.disk.do(lambda: objects.agrees(answer, body, encode(crc)))
