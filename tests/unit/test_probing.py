"""What a store's conditional deletions are worth, by trying them."""

from __future__ import annotations

import pytest

from remote_ckpt.errors import AccessDeniedError, InvalidRequestError, ObjectNotFoundError, PreconditionFailedError
from remote_ckpt.stores.base import Version
from remote_ckpt.stores.probing import try_conditional_delete


class Server:
    """One object, and a server that compares versions, or does not."""

    def __init__(self, *, compares=True, refuses=None, also_the_right=False):
        self.version = Version("the right one")
        self.compares, self.refuses, self.also_the_right = compares, refuses, also_the_right

    def look(self):
        if self.version is None:
            raise ObjectNotFoundError("gone")
        return self.version

    def delete(self, version):
        if self.refuses is not None:
            raise self.refuses("never")
        if self.compares and (version != self.version or self.also_the_right):
            raise PreconditionFailedError("another version")
        self.version = None


@pytest.mark.parametrize(
    ("server", "honest"),
    [
        (Server(), True),
        (Server(compares=False), False),
        (Server(also_the_right=True), False),
        (Server(refuses=InvalidRequestError), False),
        (Server(refuses=AccessDeniedError), False),
    ],
    ids=["honours", "ignores", "refuses the right one", "does not take it", "lets nobody delete"],
)
def test_a_conditional_deletion_counts_if_the_wrong_one_fails_and_the_right_one_does_not(server, honest):
    """All others are looked at before each deletion."""
    assert try_conditional_delete(server.delete, server.look) is honest
