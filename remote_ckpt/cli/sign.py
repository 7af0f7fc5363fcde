"""`remote-ckpt sign`: sign a manifest written without our key."""

from __future__ import annotations

import typer

from remote_ckpt.cli._arguments import Debug, Options, Url, storage_options
from remote_ckpt.cli._console import say
from remote_ckpt.manifest import Committer
from remote_ckpt.manifest.signing import VARIABLE
from remote_ckpt.records import Manifest
from remote_ckpt.run import Run


def sign(url: Url, option: Options = None, debug: Debug = False) -> None:  # noqa: ARG001 - see Debug
    """Sign a run's manifest with REMOTE_CKPT_SIGNING_KEY, whoever wrote it: look at it first."""
    run = Run(url, storage_options=storage_options(option))
    if not run.signer.has_key:
        raise typer.BadParameter(f"There is no key. Set {VARIABLE}; `openssl rand -hex 32` makes a good one.")
    committer = Committer(run.store, run.location, signer=run.signer.adopting())
    if not committer.change(_next).revision:
        raise run.nothing()
    say(f"signed {run.url}: from now on it is written and read with this key only")


def _next(manifest: Manifest) -> Manifest:
    """Return the manifest with the next revision; a missing manifest is returned unchanged, and so is not created."""
    return manifest.model_copy(update={"revision": manifest.revision + 1}) if manifest.series else manifest
