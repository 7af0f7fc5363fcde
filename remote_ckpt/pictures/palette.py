"""Colours, dashes and marks that stay apart for every eye, on paper and without colour."""

from __future__ import annotations

from dataclasses import dataclass

# Okabe and Ito, "Color Universal Design", 2008, without the yellow that vanishes on white; black comes last.
# The second of each pair is lighter, for a dark background.
_COLOURS = (
    ("#0072b2", "#4fa8e0"),
    ("#d55e00", "#f08a3c"),
    ("#009e73", "#2fc79b"),
    ("#cc79a7", "#e29cc3"),
    ("#b07d00", "#e6b422"),
    ("#3a9bd9", "#8fd0ff"),
    ("#444444", "#c8c8c8"),
)
_DASHES = ((), (5, 2), (1.5, 1.5))
LOOKS = len(_COLOURS) * len(_DASHES)
"""So many lines can be told apart."""

_TERMINAL = ("blue", "red", "green", "magenta", "yellow", "cyan")
_MARKS = ("●", "▲", "■", "◆", "▼", "○")
_PLAIN_MARKS = ("o", "+", "x", "#", "@", "%")


@dataclass(frozen=True)
class Look:
    """How one of several lines looks.

    Attributes:
        light: Its colour on a light background.
        dark: Its colour on a dark background.
        dashes: Lengths of dash and gap, in widths of the line; empty for a solid one.
    """

    light: str
    dark: str
    dashes: tuple[float, ...]


def look(number: int) -> Look:
    """Return the look of line `number`; `LOOKS` are different."""
    light, dark = _COLOURS[number % len(_COLOURS)]
    return Look(light, dark, _DASHES[number // len(_COLOURS) % len(_DASHES)])


def mark(number: int, of: int, *, unicode: bool) -> str:
    """Return the character that marks run `number` of so many in a terminal: a shape, or a letter if they are many."""
    shapes = _MARKS if unicode else _PLAIN_MARKS
    if of <= len(shapes):
        return shapes[number]
    return chr(ord("a" if number % 52 < 26 else "A") + number % 26)


def terminal_colour(number: int) -> str:
    """Return one of the terminal's own colours, which its user has chosen to be readable."""
    return _TERMINAL[number % len(_TERMINAL)]
