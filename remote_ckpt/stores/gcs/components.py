"""The components of an upload: temporary objects under the run's hidden folder."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial

from remote_ckpt.errors import StoreError
from remote_ckpt.location import HIDDEN
from remote_ckpt.stores.base import Expect, ObjectInfo
from remote_ckpt.stores.gcs import objects
from remote_ckpt.stores.gcs.session import GcsSession
from remote_ckpt.stores.transfer.concurrency import ConcurrencyWindow, slide

FOLDER = f"{HIDDEN}/components/"
_WIDTH = 32


def folder_of(upload_id: str) -> str:
    """Return the common prefix of the keys of an upload's components."""
    return f"{FOLDER}{upload_id}/"


async def listed(session: GcsSession, prefix: str) -> list[ObjectInfo]:
    """Return all components with keys under `prefix`."""
    found: list[ObjectInfo] = []
    token = ""
    while True:
        page, token = await objects.list_page(session, prefix, token)
        found += page
        if not token:
            return found


async def reduce(session: GcsSession, upload_id: str, parts: list[ObjectInfo]) -> list[ObjectInfo]:
    """Compose components into fewer and larger components, until a single request can compose all.

    Repeating this after an error is safe: the same keys get the same bytes.
    """
    level = 0
    while len(parts) > objects.MOST_SOURCES:
        groups = [parts[at : at + objects.MOST_SOURCES] for at in range(0, len(parts), objects.MOST_SOURCES)]
        joined: dict[int, ObjectInfo] = {}

        async def join(number: int, group: list[ObjectInfo], level: int = level) -> None:
            key = f"{folder_of(upload_id)}{level}-{number:05d}"
            joined[number] = await objects.compose(session, key, group, Expect.ANYTHING)  # noqa: B023 - awaited below

        await slide((partial(join, number, group) for number, group in enumerate(groups)), ConcurrencyWindow(_WIDTH))
        parts = [joined[number] for number in range(len(groups))]
        level += 1
    return parts


def abandoned(parts: Iterable[ObjectInfo], oldest: datetime) -> list[ObjectInfo]:
    """Return the components of all uploads without any new component since `oldest`.

    The first components of an upload under way may be days old: the upload took long, or was interrupted and resumed
    from a spool. Therefore the newest component of each upload decides.
    """
    by_upload: dict[str, list[ObjectInfo]] = {}
    for part in parts:
        by_upload.setdefault(part.key.rpartition("/")[0], []).append(part)
    return [
        part
        for group in by_upload.values()
        if all(one.modified is not None and one.modified <= oldest for one in group)
        for part in group
    ]


async def remove(session: GcsSession, parts: Iterable[ObjectInfo]) -> None:
    """Delete components, unless changed since they were listed; raise no `StoreError`."""

    async def one(part: ObjectInfo) -> None:
        with suppress(StoreError):  # a later sweep deletes the rest
            # Only this generation: a process that resumes the upload may have written the component again.
            await objects.delete(session, part.key, part.version)

    await slide((partial(one, part) for part in parts), ConcurrencyWindow(_WIDTH))
