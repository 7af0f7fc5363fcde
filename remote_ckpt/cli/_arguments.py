"""Arguments shared by several commands, and their parsing."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from remote_ckpt.cli._group import remember_debug
from remote_ckpt.records import Which

_IDS = 16  # the length of an id: so many digits or more are taken as an id, not as an epoch
_TEXTS = frozenset({"key", "secret", "token", "username", "password"})  # never numbers, even if all digits


def parse_option(text: str) -> tuple[list[str], Any]:
    """Return the path and the value of `client_kwargs.region_name=eu-west-1`.

    The value is JSON where it can be read as JSON, else text. Credentials are always text.

    Raises:
        typer.BadParameter: The name or the `=` is missing. The message does not repeat the value: it may be a secret.
    """
    name, equals, value = text.partition("=")
    path = name.split(".")
    if not equals or not all(path):
        raise typer.BadParameter("Write --option key=value, with dots for nesting: client_kwargs.region_name=eu-west-1")
    if path[-1] in _TEXTS:
        return path, value
    try:
        return path, json.loads(value)
    except ValueError:
        return path, value


def storage_options(texts: list[str] | None) -> dict[str, Any]:
    """Return the values of all `--option` arguments, as fsspec's `storage_options`.

    Raises:
        typer.BadParameter: As `parse_option`; or a name has both a value and values inside.
    """
    options: dict[str, Any] = {}
    for text in texts or ():
        *outer, last = (parsed := parse_option(text))[0]
        place = options
        for name in outer:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise typer.BadParameter(f"--option {name} is given both a value and values inside it.")
        place[last] = parsed[1]
    return options


def _checked(texts: list[str] | None) -> list[str] | None:
    storage_options(texts)
    return texts


def parse_which(text: str) -> Which:
    """Convert a WHICH argument to `Which`: an epoch (from 1) becomes 0-based; `best`, `latest` and ids stay as given.

    Raises:
        typer.BadParameter: The argument is epoch 0.
    """
    if not text.isdecimal() or len(text) >= _IDS:
        return text
    if int(text) == 0:
        raise typer.BadParameter("Epochs count from 1, as Keras shows them.")
    return int(text) - 1


Url = Annotated[
    str, typer.Argument(metavar="URL", help="The run: s3://bucket/run, gs://…, a folder; or a filename template in it.")
]
Chosen = Annotated[
    str, typer.Argument(metavar="WHICH", help="best, latest, an epoch (from 1, as Keras shows it) or an id.")
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-O",
        metavar="KEY=VALUE",
        help="For the store, as fsspec's storage_options: endpoint_url=http://…, client_kwargs.region_name=eu-west-1. "
        "Repeat for more.",
        callback=_checked,
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="For programs. Epochs count from 1 here too.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a failure's traceback.", callback=remember_debug)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")]
