"""`remote-ckpt doctor`: tests of everything needed for saving and restoring, with a remedy for each failure."""

from __future__ import annotations

import json as json_module
from typing import Annotated

import typer

from remote_ckpt.cli._arguments import Debug, Json, Options, storage_options
from remote_ckpt.cli._checkup import MIB, Checkup, Finding, as_json
from remote_ckpt.cli._console import say, say_json, tell
from remote_ckpt.cli._group import FAILED
from remote_ckpt.cli._policy import gcloud_commands, policies
from remote_ckpt.run import Run
from remote_ckpt.stores import Transfer

_CHECK_TIMEOUT = 30.0  # seconds after which a failed request or transfer is not tried again

_STYLES = {"ok": "", "warn": "yellow", "FAIL": "red", "skip": "dim"}

Where = Annotated[
    str | None, typer.Argument(metavar="URL", help="The run, or one that you mean to make.", show_default=False)
]
Policy = Annotated[
    bool, typer.Option("--policy", help="Only print what a writer and a reader must be allowed (S3, Google Cloud).")
]
Size = Annotated[int, typer.Option("--size", metavar="MIB", min=9, max=10_000, help="How much to send and to fetch.")]


def doctor(
    url: Where = None,
    policy: Policy = False,
    size: Size = 16,
    option: Options = None,
    json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - see Debug
) -> None:
    """Try out credentials, bucket, transfers and spool, and leave nothing behind.

    Exit code 1: something does not work; its line says what to do.
    """
    if policy:
        _print_policies(url, json=json)
        return
    if url is None:
        raise typer.BadParameter("Which run? remote-ckpt doctor s3://bucket/run")
    options = storage_options(option)
    run = Run(url, storage_options=options, transfer=Transfer(deadline=_CHECK_TIMEOUT))
    findings = []
    for finding in Checkup(run, options, size * MIB).findings():
        findings.append(finding)
        if not json:
            _show(finding)
    if json:
        say_json(as_json(findings))
    if any(finding.status == "FAIL" for finding in findings):
        raise typer.Exit(FAILED)


def _show(finding: Finding) -> None:
    told = " ".join(finding.told.split())
    say(f"{finding.status:<4}  {finding.check:<13}  {told}", style=_STYLES[finding.status])


def _print_policies(url: str | None, *, json: bool) -> None:
    found = policies(url)
    if json:
        say_json(found)
        return
    for name, content in found.items():
        say(f"# {name}", style="bold")
        if "role" in content:
            for command in gcloud_commands(name, content, str(url)):
                say(command)
        else:
            say(json_module.dumps(content, indent=2))
    tell("where the bucket encrypts with a KMS key, its users need kms:GenerateDataKey (writers) and kms:Decrypt too.")
