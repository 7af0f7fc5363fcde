"""Colours, dashes and marks that stay distinct for colour-blind readers, on paper and without colour."""

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
"""The number of different looks."""

_TERMINAL = ("blue", "red", "green", "magenta", "yellow", "cyan")
_MARKS = ("●", "▲", "■", "◆", "▼", "○")
_PLAIN_MARKS = ("o", "+", "x", "#", "@", "%")


@dataclass(frozen=True)
class Look:
    """The look of a line among several.

    Attributes:
        light: The colour on a light background.
        dark: The colour on a dark background.
        dashes: Lengths of dash and gap, in widths of the line; empty for a solid line.
    """

    light: str
    dark: str
    dashes: tuple[float, ...]


def look(number: int) -> Look:
    """Return the look of line `number`, from 0; after `LOOKS` lines the looks repeat."""
    light, dark = _COLOURS[number % len(_COLOURS)]
    return Look(light, dark, _DASHES[number // len(_COLOURS) % len(_DASHES)])


def mark(number: int, of: int, *, unicode: bool) -> str:
    """Return the mark of run `number` (from 0) in a terminal chart of `of` runs: a shape, or a letter for many runs."""
    shapes = _MARKS if unicode else _PLAIN_MARKS
    if of <= len(shapes):
        return shapes[number]
    return chr(ord("a" if number % 52 < 26 else "A") + number % 26)


def terminal_colour(number: int) -> str:
    """Return a colour name of the terminal's own palette, which the user can make readable."""
    return _TERMINAL[number % len(_TERMINAL)]
