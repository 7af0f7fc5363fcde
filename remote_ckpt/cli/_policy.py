"""The least that a writer and a reader of a run must be allowed: exactly the actions that our requests need."""

from __future__ import annotations

import shlex
from typing import Any

from remote_ckpt.errors import LocationError
from remote_ckpt.location import Location

_SAMPLE = "s3://YOUR-BUCKET/YOUR-RUN"

# Of the objects: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
_READS = ["s3:GetObject"]
_WRITES = [
    *_READS,  # the manifest before it is changed; an object after it was sent; the source of a copy
    "s3:PutObject",  # parts of uploads and copies are the same action
    "s3:DeleteObject",  # retention, probes, what arrived damaged
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",  # to go on with an upload that was broken off
]

# https://cloud.google.com/storage/docs/access-control/iam-permissions
_GCS_READS = ["storage.objects.get", "storage.objects.list"]
_GCS_WRITES = [*_GCS_READS, "storage.objects.create", "storage.objects.delete"]


def policies(url: str | None) -> dict[str, Any]:
    """Return the writer's and the reader's policy for a run, as AWS takes them, or Google Cloud's roles.

    Args:
        url: The run; None leaves its names to be filled in.

    Raises:
        LocationError: There is no such thing as a policy for its kind of store.
    """
    location = Location.parse(url or _SAMPLE)
    bucket, _, prefix = location.root.partition("://")[2].partition("/")
    prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    if location.protocol in ("s3", "s3a"):
        return {"writer": _writer(bucket, prefix), "reader": _reader(bucket, prefix)}
    if location.protocol in ("gs", "gcs"):
        return {"writer": _role("Writer", _GCS_WRITES, prefix), "reader": _role("Reader", _GCS_READS, prefix)}
    raise LocationError(f"There are policies for s3:// and gs:// only, not for {location.name}.")


def gcloud_commands(name: str, role: dict[str, Any], url: str) -> list[str]:
    """Return the commands that make a role of `policies` and give it to somebody."""
    bucket = Location.parse(url).root.partition("://")[2].partition("/")[0]
    title, permissions = role["role"]["title"], ",".join(role["role"]["includedPermissions"])
    role_id = f"remoteCkpt{name.capitalize()}"
    commands = [
        f"gcloud iam roles create {role_id} --project=PROJECT --title={shlex.quote(title)} --permissions={permissions}",
        (
            f"gcloud storage buckets add-iam-policy-binding gs://{bucket} --member=MEMBER "
            f"--role=projects/PROJECT/roles/{role_id}"
        ),
    ]
    if condition := role["condition"]:
        commands[1] += f" --condition={shlex.quote(f'^;^title={title};expression={condition}')}"
    return commands


def _writer(bucket: str, prefix: str) -> dict[str, Any]:
    # Its own statement: this action knows no condition on the prefix.
    uploads = {
        "Sid": "FindUnfinishedUploads",
        "Effect": "Allow",
        "Action": ["s3:ListBucketMultipartUploads"],
        "Resource": [f"arn:aws:s3:::{bucket}"],
    }
    return _document(_objects(_WRITES, bucket, prefix), *_listing(bucket, prefix), uploads)


def _reader(bucket: str, prefix: str) -> dict[str, Any]:
    return _document(_objects(_READS, bucket, prefix), *_listing(bucket, prefix))


def _document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _objects(actions: list[str], bucket: str, prefix: str) -> dict[str, Any]:
    return {
        "Sid": "ObjectsOfTheRun",
        "Effect": "Allow",
        "Action": actions,
        "Resource": [f"arn:aws:s3:::{bucket}/{prefix}*"],
    }


def _listing(bucket: str, prefix: str) -> list[dict[str, Any]]:
    """Return the right to list the run's keys, and to be told that an object is missing instead of forbidden.

    S3 asks for the same action there, but such a request has no prefix to compare.
    """
    allowed = {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [f"arn:aws:s3:::{bucket}"]}
    if not prefix:
        return [{"Sid": "KeysOfTheBucket", **allowed}]
    return [
        {"Sid": "KeysOfTheRun", **allowed, "Condition": {"StringLike": {"s3:prefix": [f"{prefix}*"]}}},
        {"Sid": "MissingIsNotForbidden", **allowed, "Condition": {"Null": {"s3:prefix": "true"}}},
    ]


def _role(name: str, permissions: list[str], prefix: str) -> dict[str, Any]:
    """Return a custom role, and the condition under which to bind it: the run's objects, and lists of them.

    https://cloud.google.com/iam/docs/conditions-attribute-reference ("objectListPrefix")
    """
    condition = (
        f"resource.name.extract('/objects/{{key}}').startsWith('{prefix}') || "
        f"api.getAttribute('storage.googleapis.com/objectListPrefix', '').startsWith('{prefix}')"
        if prefix
        else ""
    )
    return {
        "role": {"title": f"remote_ckpt {name.lower()}", "stage": "GA", "includedPermissions": permissions},
        "condition": condition,
    }
