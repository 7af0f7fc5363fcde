"""Sizes, times, scores and names, formatted for people."""

from __future__ import annotations

from datetime import datetime, timezone

_UNITS = (("d", 86400), ("h", 3600), ("min", 60))
_SCALES = (("ms", 0.001, 1.0), ("s", 1.0, 120.0), ("min", 60.0, 7200.0), ("h", 3600.0, 48 * 3600.0))


def human_bytes(count: float) -> str:
    """Return a size: `"12.3 MB"` (powers of ten, as storage is sold)."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def human_time(seconds: float) -> str:
    """Return a length of time with one decimal: `"12.3 s"`, `"4.0 h"`."""
    unit, length = time_unit(seconds)
    return f"{seconds / length:.1f} {unit}"


def time_unit(longest: float) -> tuple[str, float]:
    """Return name and length (seconds) of the unit for times up to `longest` seconds."""
    fitting = ((unit, length) for unit, length, limit in _SCALES if longest < limit)
    return next(fitting, ("d", 86400.0))


def age(moment: datetime, now: datetime | None = None) -> str:
    """Return the time since `moment`: `"3 h"`. A moment in the future, from another clock, is `"0 s"`."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    seconds = max(0.0, ((now or datetime.now(timezone.utc)) - moment).total_seconds())
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def number(value: float | None) -> str:
    """Return a score with six digits; a dash for None."""
    return "-" if value is None else f"{value:.6g}"


def safe(text: object) -> str:
    """Return `text` with control characters replaced: terminals obey escape sequences from an untrusted bucket."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in str(text))


def shortened(text: str, length: int) -> str:
    """Return `text` in at most `length` characters, with an ellipsis for a part cut out of the middle."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"
