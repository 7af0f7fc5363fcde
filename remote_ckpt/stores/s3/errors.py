"""Translate errors of S3, botocore, aiohttp and s3fs into our classes, by their status, code and class alone."""

from __future__ import annotations

from typing import Any

from botocore import exceptions as boto

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
    StoreFullError,
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
from remote_ckpt.urls import redact

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and what MinIO, Ceph and R2 add to it
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "InvalidToken"}
_WRONG_KEYS = {"SignatureDoesNotMatch", "InvalidAccessKeyId", "AuthorizationHeaderMalformed", "InvalidSecurity"}
_SKEWED = {"RequestTimeTooSkewed"}
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
_NOT_APPLIED = {
    "SlowDown",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
}  # 503 alone may come from a proxy that lost the answer
_DAMAGED = {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody"}
_CUT = {"RequestTimeout", "RequestTimeTooLong"}
_REGION = {"PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException"}

_PERMISSIONS = {
    "get_object": "s3:GetObject",
    "head_object": "s3:GetObject",
    "put_object": "s3:PutObject",
    "create_multipart_upload": "s3:PutObject",
    "upload_part": "s3:PutObject",
    "upload_part_copy": "s3:PutObject, and s3:GetObject of the source",
    "complete_multipart_upload": "s3:PutObject",
    "copy_object": "s3:PutObject, and s3:GetObject of the source",
    "delete_object": "s3:DeleteObject",
    "list_objects_v2": "s3:ListBucket",
    "list_multipart_uploads": "s3:ListBucketMultipartUploads",
    "list_parts": "s3:ListMultipartUploadParts",
    "abort_multipart_upload": "s3:AbortMultipartUpload",
}
_WRITES = {"put_object", "complete_multipart_upload", "copy_object", "create_multipart_upload", "delete_object"}


def code_of(error: BaseException | None) -> str:
    """Return the service's error code behind an error of ours; empty when the service did not answer."""
    response = _response(error)
    return str(response.get("Error", {}).get("Code", "")) if response else ""


def is_damage(error: BaseException) -> bool:
    """Return whether the service refused because bytes and checksums do not agree."""
    return code_of(error) in _DAMAGED


def translate(error: Exception, method: str, doing: str, url: str) -> StoreError:
    """Return our error for a foreign error from a call of s3fs.

    Args:
        error: The foreign error.
        method: Botocore's name of the call.
        doing: A verb, for the message.
        url: The object's URL, for the message.
    """
    head = f"Cannot {doing} {url}: "
    # The order matters: botocore's classes overlap, and an answer of the service is more exact than any class.
    response = _response(error)
    if response is not None:
        return _answered(response, method, head)
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)):
        return NoCredentialsError(
            f"{head}no usable credentials were found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or an "
            "instance role, or pass storage_options={'key': …, 'secret': …} ({'anon': True} for public buckets)."
        )
    if isinstance(error, (boto.TokenRetrievalError, boto.SSOError)):
        return CredentialsExpiredError(f"{head}the sign-in has expired. Sign in again ('aws sso login').")
    if is_too_late(error):
        return StoreError(f"{head}the interpreter is shutting down.")
    if reason := no_store(error):
        return InvalidRequestError(f"{head}{reason}. Is that the right endpoint?")
    if is_not_trusted(error):
        return InvalidRequestError(f"{head}the server's TLS certificate is not trusted ({describe(error)}).")
    if isinstance(error, (boto.HTTPClientError, boto.ConnectionError, *FOREIGN)):
        return _unanswered(error, method, head)
    if isinstance(error, (boto.BotoCoreError, ValueError, TypeError, KeyError)):
        return InvalidRequestError(f"{head}{redact(str(error))}. Check the URL and `storage_options`.")
    return _unanswered(error, method, head)


def _answered(response: dict[str, Any], method: str, head: str) -> StoreError:
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or (code if code.isdigit() else 0))
    said = f"{status} {code}" if code and code != str(status) else str(status)
    text = str(response.get("Error", {}).get("Message", "")).rstrip(".")
    told = f"{said}: {text}" if text and text != code else said
    if code in _EXPIRED or (method.startswith("head") and status == 400):  # a HEAD has no body to name the reason in
        return CredentialsExpiredError(f"{head}the credentials have expired ({said}).")
    if code in _WRONG_KEYS or (code in _SKEWED):
        return AccessDeniedError(head + _wrong_keys(code, told))
    if code in _FULL or status == 507:
        return StoreFullError(f"{head}the store is full, or your quota is ({told}).")
    if status in (401, 403):
        return AccessDeniedError(head + _forbidden(method, said))
    if code == "NoSuchBucket" or (method == "head_bucket" and status == 404):
        return BucketNotFoundError(f"{head}the bucket does not exist. Create it, or correct its name.")
    if status == 404 and method == "put_object":  # what If-Match finds where nothing is
        return PreconditionFailedError(f"{head}the object is gone; someone else has deleted it ({said}).")
    if status == 404:
        return ObjectNotFoundError(f"{head}it does not exist ({said}).")
    if status in (412, 416) or code == "ConditionalRequestConflict":
        return PreconditionFailedError(f"{head}the object is not as expected; someone else has written it ({said}).")
    return _by_status(status, code, method, head, told)


def _by_status(status: int, code: str, method: str, head: str, told: str) -> StoreError:
    if code in _NOT_APPLIED or status == 429:
        return TransientError(f"{head}the service is busy ({told}).")
    if code in _DAMAGED:
        return TransientError(f"{head}the bytes arrived damaged ({told}).")
    if code in _CUT or status in (408, 409):
        return TransientError(f"{head}the service gave up ({told}).")
    if status >= 500 and status != 501:  # a proxy may answer so after the service has carried out the request
        return _lost(method)(f"{head}the service failed ({told}).")
    if code in _REGION or 300 <= status < 400:
        return InvalidRequestError(
            f"{head}the bucket is in another region ({told}). Pass "
            "storage_options={'client_kwargs': {'region_name': …}}, or set AWS_DEFAULT_REGION."
        )
    return InvalidRequestError(f"{head}the service does not accept the request ({told}).")


def _unanswered(error: Exception, method: str, head: str) -> StoreError:
    if isinstance(error, boto.ConnectTimeoutError) or never_arrived(error):  # no connection: nothing was carried out
        return TransientError(f"{head}the service cannot be reached ({describe(error)}).")
    return _lost(method)(f"{head}the connection broke ({describe(error)}).")


def _lost(method: str) -> type[TransientError]:
    # A write whose answer was lost may have been carried out. Repeating a read is always safe.
    return OutcomeUnknownError if method in _WRITES else TransientError


def _wrong_keys(code: str, told: str) -> str:
    if code in _SKEWED:
        return f"this machine's clock is wrong by more than 15 minutes ({told})."
    return f"the access key or its secret is wrong ({told}). Check which credentials this process finds."


def _forbidden(method: str, said: str) -> str:
    needed = _PERMISSIONS.get(method, "the permission for it")
    text = f"access denied ({said}). The credentials lack {needed}"
    if method in ("get_object", "head_object"):
        return f"{text}, or the object does not exist and they lack s3:ListBucket."
    return f"{text}."


def _response(error: BaseException | None) -> dict[str, Any] | None:
    while error is not None:  # our own errors have the foreign error as their cause
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return response
        error = error.__cause__
    return None
