"""Minimal policies for writers and readers of a run: exactly the actions needed by our requests."""

from __future__ import annotations

import shlex
from typing import Any

from remote_ckpt.errors import LocationError
from remote_ckpt.location import Location

_SAMPLE = "s3://YOUR-BUCKET/YOUR-RUN"

# Actions on objects: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
_READS = ["s3:GetObject"]
_WRITES = [
    *_READS,  # the manifest before it is changed; an object after it was sent; the source of a copy
    "s3:PutObject",  # parts of uploads and copies are the same action
    "s3:DeleteObject",  # retention, probes, objects that arrived damaged
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",  # to continue an interrupted upload
]

# https://cloud.google.com/storage/docs/access-control/iam-permissions
_GCS_READS = ["storage.objects.get", "storage.objects.list"]
_GCS_WRITES = [*_GCS_READS, "storage.objects.create", "storage.objects.delete"]


def policies(url: str | None) -> dict[str, Any]:
    """Return the writer's and the reader's policy for a run, as AWS takes them, or Google Cloud's roles.

    Args:
        url: The run. With None, the policies hold placeholders for bucket and run.

    Raises:
        LocationError: The URL is neither on S3 nor on Google Cloud Storage, or is not valid.
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
    """Return the gcloud commands to create a role of `policies` and to bind the role to a member."""
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
    # A separate statement, as this action does not support a condition on the prefix.
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
    """Return the statements for listing the run's keys, and for the answer "missing" instead of "forbidden".

    For that answer to a request for an object, S3 requires the same action, `s3:ListBucket`. Such a request has no
    prefix that a condition could compare.
    """
    allowed = {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [f"arn:aws:s3:::{bucket}"]}
    if not prefix:
        return [{"Sid": "KeysOfTheBucket", **allowed}]
    return [
        {"Sid": "KeysOfTheRun", **allowed, "Condition": {"StringLike": {"s3:prefix": [f"{prefix}*"]}}},
        {"Sid": "MissingIsNotForbidden", **allowed, "Condition": {"Null": {"s3:prefix": "true"}}},
    ]


def _role(name: str, permissions: list[str], prefix: str) -> dict[str, Any]:
    """Return a custom role, and the condition for the binding: only the run's objects, and only lists of these.

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
