"""An SFTP server on loopback that serves one folder: `python sftp_server.py FOLDER` prints its port."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

USER, PASSWORD = "keras", "let-me-in"


@contextlib.contextmanager
def sftp_server(folder: Path) -> Iterator[dict[str, Any]]:
    """Serve `folder` from a process of its own, and give what fsspec must be told to get there."""
    with subprocess.Popen([sys.executable, __file__, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield {"port": port, "username": USER, "password": PASSWORD, "look_for_keys": False, "allow_agent": False}
        finally:
            process.kill()


def main(folder: str) -> None:
    import asyncssh

    class Login(asyncssh.SSHServer):
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

    async def serve() -> None:
        server = await asyncssh.create_server(
            Login,
            "127.0.0.1",
            0,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=folder),
        )
        print(server.get_port(), flush=True)
        await server.wait_closed()

    asyncio.run(serve())


if __name__ == "__main__":
    main(sys.argv[1])
