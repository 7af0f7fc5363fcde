"""Translate refusals of Google Cloud Storage, and requests without an answer, into our error classes."""

from __future__ import annotations

import json
from typing import Any

import google.auth.exceptions
from gcsfs.retry import HttpError

from remote_ckpt.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    CredentialsExpiredError,
    InvalidRequestError,
    NoCredentialsError,
    ObjectNotFoundError,
    OutcomeUnknownError,
    PreconditionFailedError,
    StoreError,
    TransientError,
)
from remote_ckpt.stores.transfer.network_errors import (
    FOREIGN,
    describe,
    is_not_trusted,
    is_too_late,
    never_arrived,
    no_store,
)

# https://cloud.google.com/storage/docs/json_api/v1/status-codes
_BUSY = {"rateLimitExceeded", "userRateLimitExceeded", "backendError", "internalError"}
_PERMISSIONS = {
    "read": "storage.objects.get",
    "look at": "storage.objects.get",
    "fetch": "storage.objects.get",
    "write": "storage.objects.create, and storage.objects.delete for replacing",
    "create": "storage.objects.create",
    "copy to": "storage.objects.create, and storage.objects.get of the source",
    "delete": "storage.objects.delete",
    "list": "storage.objects.list",
    "sweep": "storage.objects.list",
}


def refused(
    status: int, contents: bytes, doing: str, url: str, *, changes: bool, of_bucket: bool = False
) -> StoreError:
    """Return our error for an answer with a status other than success.

    Args:
        status: The HTTP status.
        contents: The answer's body; JSON if the service itself answered.
        doing: A verb, for the message.
        url: The object's URL.
        changes: Whether the request would have changed something.
        of_bucket: Whether the request was about the bucket, so that a 404 means a missing bucket.
    """
    head = f"Cannot {doing} {url}: "
    reason, text = _reason(contents)
    told = f"{status} {reason}: {text}".rstrip(": ") if reason or text else str(status)
    if status == 401:
        return _unauthorized(reason, head, told)
    if reason in _BUSY and status < 500:
        return TransientError(f"{head}the service is busy ({told}).")
    if status == 403:
        needed = _PERMISSIONS.get(doing, "the permission for it")
        return AccessDeniedError(f"{head}access denied ({told}). The credentials lack {needed}.")
    if status == 404 and of_bucket:
        return BucketNotFoundError(f"{head}the bucket does not exist. Create it, or correct its name.")
    if status == 404:
        return ObjectNotFoundError(f"{head}it does not exist ({told}).")
    if status in (304, 412, 416):
        return PreconditionFailedError(f"{head}the object is not as expected; someone else has written it ({told}).")
    if status in (408, 409, 429):
        return TransientError(f"{head}the service is busy ({told}).")
    if status >= 500 and status != 501:  # a proxy may answer so after the service has carried out the request
        kind = OutcomeUnknownError if changes else TransientError
        return kind(f"{head}the service failed ({told}).")
    return InvalidRequestError(f"{head}the service does not accept the request ({told}).")


def unanswered(error: Exception, doing: str, url: str, *, changes: bool) -> StoreError:
    """Return our error for a request not made, or made without getting an answer."""
    head = f"Cannot {doing} {url}: "
    # The order matters: google.auth's classes overlap, and a request that never arrived cannot have changed anything.
    if isinstance(error, google.auth.exceptions.TransportError):
        return TransientError(f"{head}Google's sign-in service cannot be reached ({error}).")
    if isinstance(error, google.auth.exceptions.DefaultCredentialsError):
        return NoCredentialsError(head + _NO_CREDENTIALS)
    if isinstance(error, (google.auth.exceptions.GoogleAuthError, HttpError)):
        return CredentialsExpiredError(f"{head}the credentials have expired ({error}).")
    if is_too_late(error):
        return StoreError(f"{head}the interpreter is shutting down.")
    if reason := no_store(error):
        return InvalidRequestError(f"{head}{reason}. Is that the right endpoint?")
    if is_not_trusted(error):
        return InvalidRequestError(f"{head}the server's TLS certificate is not trusted ({describe(error)}).")
    if never_arrived(error):
        return TransientError(f"{head}the service cannot be reached ({describe(error)}).")
    if isinstance(error, FOREIGN):
        kind = OutcomeUnknownError if changes else TransientError
        return kind(f"{head}the connection broke ({describe(error)}).")
    return InvalidRequestError(f"{head}{describe(error)}. Check the URL and `storage_options`.")


_NO_CREDENTIALS = (
    "no usable credentials were found. Run 'gcloud auth application-default login', set "
    "GOOGLE_APPLICATION_CREDENTIALS, or pass storage_options={'token': …} ('anon' for public buckets)."
)


def _unauthorized(reason: str, head: str, told: str) -> StoreError:
    """Return the error for a 401: no credentials were sent, or those sent have expired or are not valid."""
    if reason == "required":
        return NoCredentialsError(head + _NO_CREDENTIALS)
    return CredentialsExpiredError(f"{head}the credentials have expired or are not valid ({told}).")


def _reason(contents: bytes) -> tuple[str, str]:
    try:
        error: Any = json.loads(contents)["error"]
        details = error.get("errors") or [{}]
        return str(details[0].get("reason", "")), str(error.get("message", "")).rstrip(".")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):  # not the service's JSON: a proxy's page
        return "", ""
