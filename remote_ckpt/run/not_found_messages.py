"""Error messages for a run without the checkpoint asked for."""

from __future__ import annotations

import shlex
from pathlib import Path

from remote_ckpt.location import MANIFEST_KEY, Location
from remote_ckpt.policy import by_capture
from remote_ckpt.records import Checkpoint, Manifest, Which

_SHOWN = 5


def no_checkpoint(location: Location, manifest: Manifest, waiting: int, which: Which | None, unnamed: int = 0) -> str:
    """Return an error message for a checkpoint absent from the run, with a hint where to look.

    Args:
        location: The run, perhaps with a filename template. That "template" may be the name of one checkpoint.
        manifest: The run's manifest.
        waiting: How many checkpoints of the run wait in this machine's spool.
        which: The checkpoint that was asked for; None stands for any checkpoint.
        unnamed: How many objects look like the run's checkpoints and are in no manifest.
    """
    template = location.template
    if unnamed:
        return f"{location.name} holds no checkpoint. {unnamed_files(location, unnamed)}"
    if (named := _local_file(location)) is not None and not manifest.series:
        return f"{named} is a file, not a run. A run is a folder, or the URL that training saved to."
    if template is not None and template not in manifest.series and not waiting:
        return _no_series(location, template, manifest)
    if which == "best" and (unscored := _unscored(location, manifest)):
        return f"{location.name} has no best checkpoint: {unscored}"
    wanted = "" if which is None else f" ({_name(which)})"
    return f"{location.name} holds no checkpoint{wanted}. {_hint(location, manifest, waiting)}"


def unnamed_files(location: Location, count: int) -> str:
    """Return a sentence about `count` objects named by no manifest, with the command for a rebuild."""
    url = location.name if location.template is None else location.url(location.template)
    there = "1 file that no manifest names lies" if count == 1 else f"{count} files that no manifest names lie"
    return (
        f"{there} there: was {MANIFEST_KEY} lost? `remote-ckpt rebuild {shlex.quote(url)}` makes a new one from what "
        "lies there."
    )


def _unscored(location: Location, manifest: Manifest) -> str | None:
    """Return why none of the existing checkpoints is the best, and other names to ask for; None without checkpoints."""
    held = {name: one for name, one in manifest.series.items() if location.template in (None, name) and one.latest}
    latest = by_capture(record for one in held.values() if (record := one.find("latest")))
    if not latest:
        return None
    monitors = ", ".join(sorted({one.monitor for one in held.values()}))
    return (
        f"none has a score, as {monitors} was never logged with them, or was never a number. Ask for the latest "
        f"(epoch {latest[-1].epoch + 1}), for an epoch or an id; `remote-ckpt ls` lists them."
    )


def _local_file(location: Location) -> Path | None:
    """Return the path of a local file named in place of a run; None where no such file exists."""
    path = Path(location.root, location.template or "")
    return path if location.protocol == "file" and path.is_file() else None


def _name(which: Which) -> str:
    return f"epoch {which + 1}" if isinstance(which, int) else which


def _no_series(location: Location, template: str, manifest: Manifest) -> str:
    url = location.url(template)
    found = next((record for record in _records(manifest) if record.key == template), None)
    if found is not None:
        return (
            f"{url} is one checkpoint of {location.name}. Name the run, and after it the checkpoint's epoch "
            f"({found.epoch + 1}, as Keras counts) or id ({found.id})."
        )
    if manifest.series:
        known = ", ".join(map(repr, sorted(manifest.series)[:_SHOWN]))
        more = f", and {len(manifest.series) - _SHOWN} more" if len(manifest.series) > _SHOWN else ""
        return f"{url} holds no checkpoint. The run's filename templates are: {known}{more}."
    return f"{url} holds no checkpoint. Is the URL the one that training saved to?"


def _hint(location: Location, manifest: Manifest, waiting: int) -> str:
    if waiting:
        return f"{waiting} wait in this machine's spool: `remote-ckpt recover {location.name}` uploads them."
    epochs = [record.epoch + 1 for record in _records(manifest)]
    if epochs:
        span = f"epoch {epochs[0]}" if len(set(epochs)) == 1 else f"epochs {min(epochs)} to {max(epochs)}"
        if all(record.missing for record in _records(manifest)):
            return f"The objects of all {len(epochs)} are missing. When they are there again, they count again."
        return f"It holds {len(epochs)}, of {span}; `remote-ckpt ls` lists {'it' if len(epochs) == 1 else 'them'}."
    if location.name.endswith(f"/{MANIFEST_KEY}"):
        return "Name the folder that the manifest is in."
    return "Is the URL the one that training saved to? `remote-ckpt ls` of a prefix lists the runs below it."


def _records(manifest: Manifest) -> list[Checkpoint]:
    return [record for series in manifest.series.values() for record in series.checkpoints]
