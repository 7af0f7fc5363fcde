"""What probes found out, remembered in this process and on this machine."""

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

from remote_ckpt.location import redact
from remote_ckpt.private import make_folder
from remote_ckpt.stores.base import Capabilities

_LIFETIME = 30 * 24 * 3600.0  # seconds; servers are updated

_FLAGS = [field.name for field in fields(Capabilities) if field.name != "notes"]

_known: dict[str, Capabilities] = {}
_guard = Lock()


def remembered(place: str, probe: Callable[[], Capabilities]) -> Capabilities:
    """Return what is known about `place` (endpoint and bucket), asking `probe` if nothing is.

    A cache folder that cannot be read or written only costs another probe.
    """
    with _guard:
        if place in _known:
            return _known[place]
    found = _load(place)
    if found is None:
        found = probe()
        _save(place, found)
    with _guard:
        return _known.setdefault(place, found)


def recall(place: str) -> Capabilities | None:
    """Return what this process already knows about `place`."""
    with _guard:
        return _known.get(place)


def forget() -> None:
    """Forget it all, in this process and on this machine: each store is asked again."""
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
        flags = {name: facts[name] for name in _FLAGS}  # one that an older version did not look for is not known
        if not all(isinstance(value, bool) for value in flags.values()):
            return None
        return Capabilities(**flags, notes=tuple(str(note) for note in facts["notes"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _save(place: str, found: Capabilities) -> None:
    path = _file(place)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with suppress(OSError):
        make_folder(path.parent)
        text = json.dumps({"place": redact(place), "time": time.time(), "found": asdict(found)})
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - from a descriptor, for the mode
            file.write(text)
        os.replace(temporary, path)  # noqa: PTH105
