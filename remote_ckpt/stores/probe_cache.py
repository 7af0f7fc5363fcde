"""A cache of probe results, in this process's memory and in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from threading import Lock
from typing import Any

import platformdirs

from remote_ckpt.local_files import make_folder
from remote_ckpt.location import redact
from remote_ckpt.stores.base import Capabilities

_LIFETIME = 30 * 24 * 3600.0  # seconds; servers are updated

_FLAGS = [field.name for field in fields(Capabilities) if field.name != "notes"]

_known: dict[str, Capabilities] = {}
_guard = Lock()


def remembered(place: str, probe: Callable[[], Capabilities]) -> Capabilities:
    """Return the capabilities of `place`, from the cache or, if not cached, from `probe`.

    A cache folder that cannot be read or written only costs another probe. Errors of `probe` pass, and nothing is kept.

    Args:
        place: Kind of service, endpoint and bucket.
        probe: Tests the store; called without a lock, so several threads or processes may probe at the same time.
    """
    with _guard:
        if place in _known:
            return _known[place]
    found = _load(place)
    if found is None:
        found = probe()
        _save(place, found)
    # Two threads may both have probed. The first result counts for both, so that a process never changes its mind.
    with _guard:
        return _known.setdefault(place, found)


def recall(place: str) -> Capabilities | None:
    """Return the capabilities of `place` if this process has them in memory, else None; neither reads nor probes."""
    with _guard:
        return _known.get(place)


def forget() -> None:
    """Delete all results, in memory and on this machine: each store is probed again."""
    with _guard:
        _known.clear()
    shutil.rmtree(_folder(), ignore_errors=True)


def _folder() -> Path:
    return Path(platformdirs.user_cache_dir("remote_ckpt")) / "probes"


def _file(place: str) -> Path:
    return _folder() / f"{hashlib.sha256(place.encode()).hexdigest()[:32]}.json"


def _load(place: str) -> Capabilities | None:
    try:
        text: Any = json.loads(_file(place).read_text(encoding="utf-8"))
        if text["place"] != redact(place) or not 0 <= time.time() - float(text["time"]) < _LIFETIME:
            return None
        facts = text["found"]
        flags = {name: facts[name] for name in _FLAGS}  # KeyError: an older version did not test this one
        if not all(isinstance(value, bool) for value in flags.values()):
            return None
        return Capabilities(**flags, notes=tuple(str(note) for note in facts["notes"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # no file, not JSON, another layout: probe again


def _save(place: str, found: Capabilities) -> None:
    path = _file(place)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with suppress(OSError):  # a cache folder that is read-only or full must not stop the run
        make_folder(path.parent)
        text = json.dumps({"place": redact(place), "time": time.time(), "found": asdict(found)})
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - from a descriptor, for the mode
            file.write(text)
        # Other processes probe the same place: a reader sees one whole result or the other. Not synced: after a power
        # failure a torn file only costs another probe.
        os.replace(temporary, path)  # noqa: PTH105
