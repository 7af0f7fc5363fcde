"""Output of the commands: facts on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from remote_ckpt.formatting import safe as safe

if TYPE_CHECKING:  # imported in the functions instead: help and shell completion need no rich, and start faster
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
    """Return the cells of a table row; markup and escape sequences in the values have no effect."""
    from rich.text import Text

    return [value if isinstance(value, Text) else Text(safe(value)) for value in values]


class Warnings(logging.Handler):
    """A log handler for the package's warnings: each is printed on stderr in the style of the commands."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the warning on stderr."""
        tell(record.getMessage(), style="yellow")


def show_warnings() -> None:
    """Print the package's log warnings on stderr, for the rest of this process."""
    logger = logging.getLogger("remote_ckpt")
    logger.addHandler(Warnings(logging.WARNING))
    logger.propagate = False
