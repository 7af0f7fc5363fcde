"""JSON from an untrusted bucket: bounded in memory and depth, and with the same meaning for every reader."""

from __future__ import annotations

import json
import re
from typing import Any

MOST_VALUES = 2_000_000
"""64 MiB of records with 20 logs each hold about this many; `[],[],…` would hold ten times as many, 60 bytes each."""

MOST_LEVELS = 100
"""A manifest's own fields take 7; pydantic writes up to 255."""

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def load(data: bytes) -> Any:
    """Return the value of JSON text in UTF-8.

    Refused are invalid JSON and also: more than `MOST_VALUES` commas, brackets or pairs of texts; more than
    `MOST_LEVELS` levels; an object with the same key twice (readers would differ about its meaning); and half of a
    surrogate pair (which UTF-8 cannot encode again).

    Raises:
        ValueError: The text is refused; the message gives the reason.
    """
    require_bounds(data)
    try:
        value = json.loads(data.decode(), object_pairs_hook=_once)
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc
    if b"\\u" in data:
        # Half of a surrogate pair raises UnicodeEncodeError, which is a ValueError.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def require_bounds(data: bytes) -> None:
    """Refuse JSON with too many values or levels, before the parser builds any value in memory.

    Raises:
        ValueError: As `load`.
    """
    if max(data.count(b","), data.count(b"["), data.count(b"{"), data.count(b'"') // 4) > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES} values")
    if _is_deep(data):
        raise ValueError(f"it is nested too deeply (more than {MOST_LEVELS} levels), or not closed")


def _is_deep(data: bytes) -> bool:
    """Return whether brackets are nested too deeply, by removing pairs from the inside out."""
    if data.count(b"[") + data.count(b"{") <= MOST_LEVELS:
        return False
    # Texts may hold brackets, so remove the texts first. Without a backslash no text contains a quote; then every
    # second piece between quotes is a text, and splitting is ten times faster than the regular expression.
    outside = _STRINGS.sub(b"", data) if b"\\" in data else b"".join(data.split(b'"')[::2])
    brackets = outside.translate(None, _NOT_BRACKETS)
    for _ in range(MOST_LEVELS):
        before = len(brackets)
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(brackets) == before:
            break
    return bool(brackets)  # what is left is nested too deeply, or has no partner: then this is not JSON


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("an object has a key twice")
    return content
