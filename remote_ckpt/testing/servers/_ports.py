"""Free ports of the loopback interface."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"

# Below the range from which Linux and macOS take the ports of outgoing connections, so that none of ours is taken by a
# connection before the server binds it.
_FIRST, _LAST = 12_000, 32_000


def free_ports(count: int) -> list[int]:
    """Return `count` different ports on which nothing listens now. Another process may still come first."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(_FIRST, _LAST), k=_LAST - _FIRST):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"fewer than {count} free ports between {_FIRST} and {_LAST} on {HOST}")


def is_free(port: int) -> bool:
    """Return whether a server could listen on `port` of the loopback interface now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do it: a port whose last connections are still in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
