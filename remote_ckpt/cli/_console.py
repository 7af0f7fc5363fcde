"""What the commands print on: facts on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from remote_ckpt.human import safe as safe

if TYPE_CHECKING:  # each command imports what it prints with: help and shell completion shall answer at once
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_WIDE = 1000  # columns; a key that was cut or folded could not be copied, so wrapping is left to the terminal


def stdout() -> Console:
    """Return a console for facts; plain when piped."""
    from rich.console import Console

    return Console(highlight=False, width=_WIDE)


def stderr() -> Console:
    """Return a console for messages and progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def say(text: str, style: str = "") -> None:
    """Print a line of facts."""
    from rich.text import Text

    stdout().print(Text(safe(text), style=style), soft_wrap=True)


def tell(text: str, style: str = "") -> None:
    """Print a line for people on stderr."""
    from rich.text import Text

    stderr().print(Text(f"remote-ckpt: {safe(text)}", style=style), soft_wrap=True)


def say_json(value: Any) -> None:
    """Print JSON, indented, ASCII only."""
    print(json.dumps(value, indent=1))  # noqa: T201 - for programs: nothing may be wrapped or coloured


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return a table without lines; the columns in `right` hold numbers."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def cells(*values: object) -> list[Text]:
    """Return a table's cells; nothing in them is taken for markup or an escape sequence."""
    from rich.text import Text

    return [value if isinstance(value, Text) else Text(safe(value)) for value in values]


class Warnings(logging.Handler):
    """Shows the package's warnings as the command line's own, around a progress bar that may be there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one warning."""
        tell(record.getMessage(), style="yellow")


def show_warnings() -> None:
    """Send the package's warnings to stderr, for the rest of this process."""
    logger = logging.getLogger("remote_ckpt")
    logger.addHandler(Warnings(logging.WARNING))
    logger.propagate = False
