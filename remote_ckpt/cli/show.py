"""`remote-ckpt show`: everything about one checkpoint."""

from __future__ import annotations

from remote_ckpt.cli._arguments import Chosen, Debug, Json, Options, Url, parse_which, storage_options
from remote_ckpt.cli._console import cells, say_json, stdout, table
from remote_ckpt.cli._facts import age, as_json, copy_command, number
from remote_ckpt.records import Checkpoint
from remote_ckpt.run import Run
from remote_ckpt.saving.stats import human_bytes


def show(
    url: Url,
    which: Chosen = "best",
    option: Options = None,
    json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - see Debug
) -> None:
    """Show all that is recorded of one checkpoint, and how to fetch it without remote-ckpt."""
    options = storage_options(option)
    checkpoint = Run(url, storage_options=options).find(parse_which(which))
    if json:
        say_json(as_json(checkpoint))
        return
    rows = table("", "")
    rows.show_header = False
    for name, value in _facts(checkpoint, options.get("endpoint_url")):
        rows.add_row(*cells(name, value))
    stdout().print(rows)


def _facts(checkpoint: Checkpoint, endpoint: str | None) -> list[tuple[str, object]]:
    created = f"{checkpoint.created:%Y-%m-%d %H:%M:%S %Z} ({age(checkpoint.created)} ago)"
    facts: list[tuple[str, object]] = [
        ("url", checkpoint.url),
        ("series", checkpoint.series),
        ("id", checkpoint.id),
        ("epoch", checkpoint.epoch + 1),
    ]
    facts += [("batch", checkpoint.batch + 1)] if checkpoint.batch is not None else []
    facts += [("step", checkpoint.step)] if checkpoint.step is not None else []
    facts += [
        ("score", number(checkpoint.score)),
        *((f"  {name}", number(value)) for name, value in sorted(checkpoint.logs.items())),
        ("size", f"{human_bytes(checkpoint.size)} ({checkpoint.size:,} bytes)"),
        ("sha256", checkpoint.sha256),
        ("crc32c", checkpoint.crc32c),
        ("created", created),
        ("writer", checkpoint.writer),
    ]
    facts += [("object", "missing")] if checkpoint.missing else []
    command = copy_command(checkpoint, endpoint)
    return [*facts, ("fetch", command)] if command else facts
