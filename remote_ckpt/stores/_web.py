"""Settings and key quoting for runs on plain web servers (`http://`, `https://`); fsspec leaves both to its user."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from fsspec.config import conf

from remote_ckpt.stores.transfer.answers import IDENTITY, BoundedResponse

PROTOCOLS = ("http", "https")


def careful(root: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a run's URL without credentials, and safe arguments for the filesystem.

    With these arguments answers are not decompressed and bodies read as a whole have a limit (`BoundedResponse`). A
    user, password or token before the host moves from the URL into an `Authorization` header: fsspec would write the
    URL into errors and logs. The user's own `client_kwargs` win over ours.
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
    """Return a key quoted for a URL: `#`, `?` and `%2e` are plain characters of the key."""
    return quote(key, safe="/")


def unquoted(name: str) -> str:
    """Return the key of a link in a listing."""
    return unquote(name)
