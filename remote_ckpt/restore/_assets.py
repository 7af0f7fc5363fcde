"""What layers keep beside their variables: vocabularies. Only `.keras` archives have them."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from remote_ckpt.restore._walk import saveables

_FOLDER = "assets/"


def load_assets(model: Any, path: Path) -> list[str]:
    """Give each layer its files back. The archive was checked.

    Returns:
        A sentence for each layer whose files could not be restored, or which still lacks a vocabulary.
    """
    with tempfile.TemporaryDirectory(prefix="remote_ckpt-") as folder:
        places = _unpack(path, Path(folder))
        problems = _load_each(model, Path(folder), places)
    problems += [f"'{place}' of the archive has no place in the model" for place in sorted(places)]
    kind = "the archive has none" if path.suffix == ".keras" else "a file of weights never has one: save as '.keras'"
    problems += [f"layer '{layer.name}' has no vocabulary, and {kind}" for layer in _without_vocabulary(model)]
    return problems


def _unpack(path: Path, folder: Path) -> set[str]:
    """Write the archive's assets below `folder`; return the folders that hold any."""
    places: set[str] = set()
    if path.suffix != ".keras":
        return places
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.startswith(_FOLDER) or member.is_dir():
                continue
            target = folder / member.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)
            places.add(member.filename.rpartition("/")[0])
    return places


def _load_each(model: Any, folder: Path, places: set[str]) -> list[str]:
    problems = []
    for saveable, place in saveables(model):
        name = f"{_FOLDER}{place}".rstrip("/")
        if not hasattr(saveable, "load_assets") or name not in places:
            continue
        try:
            saveable.load_assets(str(folder / name))
        except Exception as exc:  # noqa: BLE001 - a layer's own method: whatever it raises is reported
            problems.append(f"'{name}' could not be loaded ({type(exc).__name__}: {str(exc)[:200]})")
        places.discard(name)
    return problems


def _without_vocabulary(model: Any) -> Iterator[Any]:
    """Yield layers that look words up, and have none."""
    seen: set[int] = set()
    for layer, _ in saveables(model):
        size = getattr(layer, "get_vocabulary", None)
        inner = getattr(layer, "_lookup_layer", layer)
        if size is None or id(inner) in seen:
            continue
        seen.add(id(inner))
        if not size(include_special_tokens=False):
            yield layer
