"""The policies that `remote-ckpt doctor --policy` prints, where a server enforces them: enough, and nothing spare."""

from __future__ import annotations

import copy
import os
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from records import seal, terms

from remote_ckpt.cli._policy import policies
from remote_ckpt.digests import digest_file
from remote_ckpt.errors import AccessDeniedError
from remote_ckpt.run import Run
from remote_ckpt.saving.spool import Spool
from remote_ckpt.stores import Transfer, TransferReport
from remote_ckpt.stores.base import MIB, MemoryJournal
from remote_ckpt.stores.s3.errors import _PERMISSIONS
from remote_ckpt.testing.servers import Credentials, Identity, start_seaweedfs

BUCKET = "checkpoints"
NOT_ENFORCED = {"s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"}
"""SeaweedFS lets whoever may write do these too; AWS's documentation asks for them."""


def actions(policy):
    return list(dict.fromkeys(action for statement in policy["Statement"] for action in statement["Action"]))


def without(policy, action):
    """The policy less one action."""
    made = copy.deepcopy(policy)
    for statement in made["Statement"]:
        statement["Action"] = [known for known in statement["Action"] if known != action]
    made["Statement"] = [statement for statement in made["Statement"] if statement["Action"]]
    return made


def of(name):
    return policies(f"s3://{BUCKET}/{name}")


def lacking(action):
    """A prefix for who lacks an action."""
    return f"lacks-{action.partition(':')[2].lower()}"


WRITER_ACTIONS = actions(of("any")["writer"])


@pytest.fixture(scope="module")
def server():
    identities = [
        Identity("writer", Credentials("writer", "writer-secret"), policy=of("run")["writer"]),
        Identity("reader", Credentials("reader", "reader-secret"), policy=of("run")["reader"]),
    ]
    for action in WRITER_ACTIONS:
        name = lacking(action)
        identities.append(
            Identity(name, Credentials(name, f"{name}-secret"), policy=without(of(name)["writer"], action))
        )
    with start_seaweedfs(identities=identities) as started:
        yield started


def run_as(server, name, prefix) -> Run:
    options = {**server.storage_options, "key": name, "secret": f"{name}-secret"}
    return Run(server.url(prefix), storage_options=options, transfer=Transfer(deadline=60))


def cycle(server, name, prefix, folder: Path) -> None:
    """Save with retention and under a fixed name, go on with a broken upload, restore, sweep."""
    run = run_as(server, name, prefix)
    spool = Spool(run.location)
    for number, score in enumerate((0.5, 0.25, 0.75)):
        seal(spool, number, score, rules=terms(keep_best=1, keep_last=1))
    fixed = {"series": "best.weights.h5", "key": ".remote_ckpt/best-id9.weights.h5"}
    seal(spool, 9, 0.1, rules=terms(alias="best", keep_best=1, keep_last=1), **fixed)
    spool.close()
    assert len(run.recover()) == 4
    assert (
        Run(run.location.url("w-{epoch:02d}.weights.h5"), storage_options=run._storage_options)
        .pull("best")
        .read_bytes()
    )
    resume(server, run, prefix, folder)
    admin(server).create_multipart_upload(Bucket=BUCKET, Key=f"{prefix}/w-77.weights.h5")
    assert "w-77.weights.h5" in run.sweep(timedelta(0))


def resume(server, run, prefix, folder: Path) -> None:
    """Go on with an upload that another process has begun."""
    source = folder / "large.weights.h5"
    source.write_bytes(os.urandom(9 * MIB))
    digests = digest_file(source)
    key = "large.weights.h5"
    begun = admin(server).create_multipart_upload(Bucket=BUCKET, Key=f"{prefix}/{key}")
    notes = {"bucket": BUCKET, "key": f"{prefix}/{key}", "size": digests.size, "crc32c": digests.crc32c}
    journal = MemoryJournal({**notes, "upload_id": begun["UploadId"], "part_size": 5 * MIB})
    run.store.upload(key, source, digests=digests, journal=journal, report=TransferReport())


def admin(server):
    options = server.storage_options
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=options["key"],
        aws_secret_access_key=options["secret"],
    )


def test_with_the_writers_policy_a_whole_cycle_passes(server, tmp_path):
    """And the reader's reads what it left, and may not write."""
    cycle(server, "writer", "run", tmp_path)
    reader = run_as(server, "reader", "run/best.weights.h5")
    assert reader.best.id == "id9"
    assert reader.pull("best").read_bytes()
    spool = Spool(reader.location)
    seal(spool, 20)
    spool.close()
    with pytest.raises(AccessDeniedError, match="s3:PutObject"):
        reader.recover()
    with pytest.raises(AccessDeniedError, match="s3:DeleteObject"):
        reader.store.delete("w-01.weights.h5")


def test_another_run_of_the_bucket_is_out_of_reach(server):
    """For both, reading and writing."""
    for name in ("writer", "reader"):
        other = run_as(server, name, "other")
        with pytest.raises(AccessDeniedError):
            other.manifest()
        with pytest.raises(AccessDeniedError):
            list(other.store.scan())


@pytest.mark.parametrize("action", [action for action in WRITER_ACTIONS if action not in NOT_ENFORCED])
def test_no_action_of_the_writers_policy_is_too_many(server, tmp_path, action, caplog):
    """Without it something is refused, and told; the message names the action."""
    told = ""
    try:
        cycle(server, lacking(action), lacking(action), tmp_path)
    except AccessDeniedError as error:
        told = str(error)
    assert f"The credentials lack {action}" in told + caplog.text


def test_the_policy_allows_what_our_requests_need():
    """Each call that the S3 store makes has its action in the table that messages are made of, and in the policy."""
    needed = {word.strip(",") for text in _PERMISSIONS.values() for word in text.split() if word.startswith("s3:")}
    assert needed == set(WRITER_ACTIONS)
    assert set(actions(of("any")["reader"])) < needed
