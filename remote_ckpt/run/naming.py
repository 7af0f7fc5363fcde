"""Match object names with filename templates, and guess a template from names: pure functions."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from remote_ckpt.location import HIDDEN, SUFFIXES, NameTemplate

UNKNOWN = "unknown"
"""The field of a guessed template for a metric. An object's name holds the metric's value, not the metric's name."""

_NUMBER = r"[-+ ]?(?:[0-9][0-9_,]*(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?%?|nan|inf)"
_WHOLE = r"[-+ ]?[0-9]+"
_TAKEN = r"(?:-[0-9a-f]{6}(?:-[2-9])?)?"  # the suffix of a taken name, see `publisher`
_TAKEN_AT_END = re.compile(r"-(?=[0-9]*[a-f])[0-9a-f]{6}(?:-[2-9])?$")
_BEHIND = re.compile(
    rf"^{re.escape(HIDDEN)}/(?P<stem>.+)-[0-9a-f]{{16}}(?P<suffix>{'|'.join(map(re.escape, SUFFIXES))})$"
)
_COUNT = re.compile(r"[0-9]+(?:\.[0-9]+)?")


@dataclass(frozen=True)
class Naming:
    """The set of names made from a template, with the suffixes of taken names.

    Attributes:
        template: The template.
        prefix: The common beginning of all these names.
    """

    template: NameTemplate
    prefix: str
    _names: re.Pattern[str]

    @classmethod
    def of(cls, template: NameTemplate) -> Naming:
        """Return the naming of a template; without fields, the names of the hidden objects behind the fixed name."""
        stem = template.text.removesuffix(template.suffix)
        if not template.fields:
            prefix = f"{HIDDEN}/{template.format().removesuffix(template.suffix)}-"
            middle = f"{re.escape(prefix)}[A-Za-z0-9]{{1,64}}"
        else:
            parsed = list(string.Formatter().parse(stem))
            prefix, middle = parsed[0][0], "".join(_piece(*part) for part in _once(parsed))
        return cls(template, prefix, re.compile(f"{middle}{_TAKEN}{re.escape(template.suffix)}"))

    def matches(self, key: str) -> bool:
        """Return whether `key` may have been made from the template."""
        return self._names.fullmatch(key) is not None

    def epoch(self, key: str) -> int | None:
        """Return the epoch (0-based) in a name; None for a name without an epoch."""
        found = self._names.fullmatch(key)
        text = (found.groupdict().get("epoch") if found else None) or ""
        return max(int(text) - 1, 0) if text.strip() else None


def is_guess(template: str) -> bool:
    """Return whether a template was made by `guesses` and has a metric of unknown name."""
    return f"{{{UNKNOWN}" in template


def guesses(keys: Iterable[str]) -> dict[str, list[str]]:
    """Return guessed templates with the names made from each; names without a number are left out.

    A name without a number could be any file's. Of several numbers, the first whole number that differs among the names
    is taken for the epoch; if none differs, the last whole number. A template without fields has no number of its own:
    the objects behind its fixed name are recognised by the id in their names.
    """
    shapes: dict[tuple[str, ...], list[str]] = {}
    found: dict[str, list[str]] = {}
    for key in sorted(keys):
        if behind := _BEHIND.match(key):
            found.setdefault(f"{behind['stem']}{behind['suffix']}", []).append(key)
        elif not key.startswith(f"{HIDDEN}/") and len(parts := _COUNT.split(_stem(key))) > 1:
            shapes.setdefault((_suffix(key), *parts), []).append(key)
    for (suffix, *parts), alike in shapes.items():
        found[_guess(parts, [_COUNT.findall(_stem(key)) for key in alike]) + suffix] = alike
    return found


def _guess(parts: Sequence[str], numbers: Sequence[Sequence[str]]) -> str:
    columns = list(zip(*numbers, strict=True))
    whole = [n for n, column in enumerate(columns) if all(text.isdigit() for text in column)]
    changing = [n for n in whole if len(set(columns[n])) > 1]
    epoch = changing[0] if changing else whole[-1] if whole else None
    text = _literal(parts[0])
    unknown = 0
    for n, column in enumerate(columns):
        if n == epoch:
            text += _epoch_field(column)
        elif len(set(column)) == 1 and len(numbers) > 1:
            text += column[0]
        else:
            unknown += 1
            places = len(column[0].partition(".")[2])
            text += f"{{{UNKNOWN}{unknown if unknown > 1 else ''}{f':.{places}f' if places else ''}}}"
        text += _literal(parts[n + 1])
    return text


def _epoch_field(column: Sequence[str]) -> str:
    padded = [len(text) for text in column if text.startswith("0")]
    return f"{{epoch:0{min(padded)}d}}" if padded and min(padded) > 1 else "{epoch}"


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _suffix(key: str) -> str:
    return next(suffix for suffix in SUFFIXES if key.endswith(suffix))


def _stem(key: str) -> str:
    """Return a name without the extension, and without the suffix of a taken name."""
    return _TAKEN_AT_END.sub("", key.removesuffix(_suffix(key)))


def _once(parsed: Iterable[tuple[str, str | None, str | None, str | None]]) -> Iterable[tuple[str, str | None, str]]:
    """Yield literals and fields; a repeated field comes with an empty name: a pattern may define a group only once."""
    seen: set[str] = set()
    for literal, name, spec, _ in parsed:
        yield literal, None if name is None else "" if name in seen else name, spec or ""
        seen.add(name or "")


def _piece(literal: str, name: str | None, spec: str) -> str:
    if name is None:
        return re.escape(literal)
    decimal = spec in ("", "d") or spec.rstrip("d").lstrip("0 +-<>^=").isdigit()
    if name in ("epoch", "batch") and decimal:
        return f"{re.escape(literal)}(?P<{name}>{_WHOLE})"
    return f"{re.escape(literal)}{_NUMBER if name not in ('epoch', 'batch') else '[^/]+'}"
