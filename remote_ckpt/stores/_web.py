"""Runs on plain web servers (`http://`, `https://`), with what fsspec leaves to whoever uses it."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from fsspec.config import conf

from remote_ckpt.stores.engine.answers import IDENTITY, BoundedResponse

PROTOCOLS = ("http", "https")


def careful(root: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a run's URL and its filesystem's arguments, so that nothing is unpacked, endless, or tells a secret.

    A user, password or token in the URL becomes what it would be sent as, or fsspec would name it in errors and logs.
    """
    configured = conf.get(root.partition("://")[0], {})
    given = {**(configured.get("client_kwargs") or {}), **(options.get("client_kwargs") or {})}
    who: dict[str, str] = {}
    parts = urlsplit(root)
    if parts.username is not None:
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        who = {"Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}
        root = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    settings = {"auto_decompress": False, "response_class": BoundedResponse, **given}
    settings["headers"] = {**IDENTITY, **who, **(given.get("headers") or {})}
    return root, {**options, "client_kwargs": settings}


def quoted(key: str) -> str:
    """Return a key as part of a URL: `#`, `?`, `%2e` in it are characters of its name."""
    return quote(key, safe="/")


def unquoted(name: str) -> str:
    """Return the key that a listing's link names."""
    return unquote(name)
