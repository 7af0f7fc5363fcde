"""Restore the files (vocabularies) of layers. Only `.keras` archives hold such files."""

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
    """Load each layer's files from a checked archive; look for layers without a vocabulary.

    Layers are changed one after the other; a failure of one layer is returned, and the others are loaded.

    Args:
        model: Its weights were restored already.
        path: A checked archive; or a file of weights, which holds no vocabulary.

    Returns:
        A sentence for each layer whose files could not be restored, or which still lacks a vocabulary.

    Raises:
        OSError: The files cannot be unpacked to the temporary folder.
        zipfile.BadZipFile: A member is damaged.
        zlib.error: A member is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="remote_ckpt-") as folder:
        places = _unpack(path, Path(folder))
        problems = _load_each(model, Path(folder), places)
    problems += [f"'{place}' of the archive has no place in the model" for place in sorted(places)]
    kind = "the archive has none" if path.suffix == ".keras" else "a file of weights never has one: save as '.keras'"
    problems += [f"layer '{layer.name}' has no vocabulary, and {kind}" for layer in _without_vocabulary(model)]
    return problems


def _unpack(path: Path, folder: Path) -> set[str]:
    """Write the archive's assets below `folder`; return the folders with assets, as named in the archive."""
    places: set[str] = set()
    if path.suffix != ".keras":
        return places
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.startswith(_FOLDER) or member.is_dir():
                continue
            target = folder / member.filename  # `check_keras_archive` has refused names that leave the folder
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
        except Exception as exc:  # noqa: BLE001 - a layer's own method may raise any class; the error is returned
            problems.append(f"'{name}' could not be loaded ({type(exc).__name__}: {str(exc)[:200]})")
        places.discard(name)
    return problems


def _without_vocabulary(model: Any) -> Iterator[Any]:
    """Yield lookup layers (for words or tokens) with an empty vocabulary."""
    seen: set[int] = set()
    for layer, _ in saveables(model):
        size = getattr(layer, "get_vocabulary", None)
        inner = getattr(layer, "_lookup_layer", layer)  # TextVectorization holds a lookup layer: yield one of the two
        if size is None or id(inner) in seen:
            continue
        seen.add(id(inner))
        if not size(include_special_tokens=False):
            yield layer
