"""Sentences about waiting checkpoints with this run's URL, sealed for another server or for an unknown server."""

from __future__ import annotations

from remote_ckpt.saving.spool import Spool


def sentences(spool: Spool) -> list[str]:
    """Return a sentence for each other server with waiting checkpoints, and for checkpoints without a server.

    Raises:
        StoreError: Checkpoints wait, and the run's server cannot be found out.
    """
    counted: dict[str | None, int] = {}
    for entry in spool.elsewhere():
        counted[entry.server] = counted.get(entry.server, 0) + 1
    return [_sentence(spool, server, count) for server, count in sorted(counted.items(), key=lambda one: one[0] or "")]


def _sentence(spool: Spool, server: str | None, count: int) -> str:
    url, here = spool.location.name, spool.server or "this machine"
    head = f"1 checkpoint waits in {spool.folder}" if count == 1 else f"{count} checkpoints wait in {spool.folder}"
    them, they = ("it", "it is") if count == 1 else ("them", "they are")
    if server is None:
        return (
            f"{head} for {url}, and the server was not noted: by an earlier version, or for want of usable settings. "
            f"If {they} for {here}, `remote-ckpt recover {url}` uploads {them}."
        )
    return (
        f"{head} for {url} on {server or 'this machine'}; {they} not for this server ({here}). "
        f"`remote-ckpt recover {url}` with that server's settings uploads {them}."
    )
