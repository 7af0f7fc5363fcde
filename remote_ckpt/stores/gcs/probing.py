"""Probe a server with the API of GCS for preconditions and owners; Google's own is probed like an emulator."""

from __future__ import annotations

import uuid
from contextlib import suppress

from remote_ckpt.errors import StoreError
from remote_ckpt.location import HIDDEN
from remote_ckpt.stores import probing
from remote_ckpt.stores.base import Capabilities, Expect, Version
from remote_ckpt.stores.gcs import objects
from remote_ckpt.stores.gcs.session import GcsSession

_OWNER = "probe"


def probe(session: GcsSession) -> Capabilities:
    """Try conditional inserts, owners, a conditional compose and a conditional delete.

    The object is deleted again; deleting that fails is not reported.

    Raises:
        StoreError: The bucket cannot be written at all, or an answer was lost: it is not known what the server does.
    """
    key = f"{HIDDEN}/probe-{uuid.uuid4().hex}"

    def write(data: bytes, expect: Version | Expect) -> Version:
        return session.run(objects.put(session, key, data, expect))

    async def compose() -> Version:
        source = await objects.look(session, key)
        return (await objects.compose(session, key, [source], Expect.ABSENT)).version

    try:
        create_only, version = probing.try_create_only(write)
        swap = probing.try_compare_and_swap(write, lambda: session.run(objects.read(session, key, 1)), version)
        owners = session.run(_keeps_owner(session, key))
        uploads = probing.refused(lambda: session.run(compose())) is None
        deletes = probing.try_conditional_delete(
            lambda version: session.run(objects.delete(session, key, version)),
            lambda: session.run(objects.look(session, key)).version,
        )
    finally:
        with suppress(StoreError):  # a small object left behind must not hide what the probe found
            session.run(objects.delete(session, key))
    facts = (
        (create_only, probing.NO_CREATE_ONLY),
        (swap, probing.NO_COMPARE_AND_SWAP),
        (uploads or not create_only, probing.NO_CREATE_ONLY_UPLOAD),
    )
    notes = tuple(note for holds, note in facts if not holds)
    return Capabilities(create_only, swap, uploads, False, conditional_delete=deletes, owners=owners, notes=notes)


async def _keeps_owner(session: GcsSession, key: str) -> bool:
    """Write an object with an owner; return whether the stored object has this owner."""
    await objects.put(session, key, b"5", Expect.ANYTHING, _OWNER)
    return (await objects.look(session, key)).owner == _OWNER
