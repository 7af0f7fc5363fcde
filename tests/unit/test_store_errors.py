"""Foreign errors in our words: the table, row by row."""

from __future__ import annotations

import asyncio
import errno
import json
import ssl

import aiohttp
import aiohttp.client_reqrep
import multidict
import pytest
import yarl
from botocore import exceptions as boto
from google.auth import exceptions as auth

from remote_ckpt import errors
from remote_ckpt.stores import _generic_errors, _os_errors
from remote_ckpt.stores.gcs import errors as gcs
from remote_ckpt.stores.s3 import errors as s3

URL_OF_KEY = "s3://b/run/manifest.json"


def answered(status: int, code: str, message: str = "") -> Exception:
    """What s3fs raises for an answer: some OSError, caused by botocore's error."""
    client_error = boto.ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Whatever"
    )
    error = OSError(errno.EINVAL, "s3fs's own view")
    error.__cause__ = client_error
    return error


@pytest.mark.parametrize(
    ("status", "code", "method", "expected"),
    [
        (403, "AccessDenied", "put_object", errors.AccessDeniedError),
        (403, "403", "head_object", errors.AccessDeniedError),
        (403, "SignatureDoesNotMatch", "get_object", errors.AccessDeniedError),
        (403, "InvalidAccessKeyId", "get_object", errors.AccessDeniedError),
        (403, "RequestTimeTooSkewed", "get_object", errors.AccessDeniedError),
        (401, "Unauthorized", "get_object", errors.AccessDeniedError),
        (400, "ExpiredToken", "put_object", errors.CredentialsExpiredError),
        (403, "ExpiredTokenException", "get_object", errors.CredentialsExpiredError),
        (403, "RequestExpired", "get_object", errors.CredentialsExpiredError),
        (400, "400", "head_object", errors.CredentialsExpiredError),
        (404, "NoSuchKey", "get_object", errors.ObjectNotFoundError),
        (404, "404", "head_object", errors.ObjectNotFoundError),
        (404, "NoSuchUpload", "complete_multipart_upload", errors.ObjectNotFoundError),
        (404, "NoSuchBucket", "get_object", errors.BucketNotFoundError),
        (404, "NoSuchBucket", "put_object", errors.BucketNotFoundError),
        (404, "404", "head_bucket", errors.BucketNotFoundError),
        (404, "NoSuchKey", "put_object", errors.PreconditionFailedError),
        (412, "PreconditionFailed", "put_object", errors.PreconditionFailedError),
        (409, "ConditionalRequestConflict", "put_object", errors.PreconditionFailedError),
        (416, "InvalidRange", "get_object", errors.PreconditionFailedError),
        (503, "SlowDown", "put_object", errors.TransientError),
        (503, "ServiceUnavailable", "complete_multipart_upload", errors.TransientError),
        (429, "TooManyRequests", "put_object", errors.TransientError),
        (408, "RequestTimeout", "put_object", errors.TransientError),
        (400, "RequestTimeout", "upload_part", errors.TransientError),
        (400, "BadDigest", "upload_part", errors.TransientError),
        (409, "OperationAborted", "put_object", errors.TransientError),
        (500, "InternalError", "get_object", errors.TransientError),
        (500, "InternalError", "upload_part", errors.TransientError),
        (500, "InternalError", "put_object", errors.OutcomeUnknownError),
        (500, "InternalError", "complete_multipart_upload", errors.OutcomeUnknownError),
        (502, "BadGateway", "copy_object", errors.OutcomeUnknownError),
        (503, "503", "put_object", errors.OutcomeUnknownError),
        (507, "InsufficientStorage", "put_object", errors.StoreFullError),
        (403, "QuotaExceeded", "put_object", errors.StoreFullError),
        (501, "NotImplemented", "put_object", errors.InvalidRequestError),
        (400, "InvalidArgument", "put_object", errors.InvalidRequestError),
        (400, "EntityTooLarge", "put_object", errors.InvalidRequestError),
        (301, "PermanentRedirect", "put_object", errors.InvalidRequestError),
    ],
)
def test_an_answer_of_s3_is_told_by_status_and_code(
    status: int, code: str, method: str, expected: type[Exception]
) -> None:
    """The exact class: "outcome unknown" is not just transient."""
    error = s3.translate(answered(status, code), method, "write", URL_OF_KEY)
    assert type(error) is expected
    assert URL_OF_KEY in str(error)


def test_a_refusal_by_s3_names_the_missing_permission() -> None:
    """So that the user knows what to ask for."""
    error = s3.translate(answered(403, "AccessDenied"), "put_object", "write", URL_OF_KEY)
    assert str(error) == (
        f"Cannot write {URL_OF_KEY}: access denied (403 AccessDenied). The credentials lack s3:PutObject."
    )
    error = s3.translate(answered(403, "403"), "head_object", "look at", URL_OF_KEY)
    assert "s3:ListBucket" in str(error)


@pytest.mark.parametrize(
    ("error", "method", "expected"),
    [
        (boto.NoCredentialsError(), "get_object", errors.NoCredentialsError),
        (boto.PartialCredentialsError(provider="env", cred_var="x"), "get_object", errors.NoCredentialsError),
        (boto.UnauthorizedSSOTokenError(), "get_object", errors.CredentialsExpiredError),
        (boto.ConnectTimeoutError(endpoint_url="http://x"), "put_object", errors.TransientError),
        (boto.ReadTimeoutError(endpoint_url="http://x"), "put_object", errors.OutcomeUnknownError),
        (boto.ReadTimeoutError(endpoint_url="http://x"), "get_object", errors.TransientError),
        (boto.ConnectionClosedError(endpoint_url="http://x"), "put_object", errors.OutcomeUnknownError),
        (boto.HTTPClientError(error=ValueError("x")), "complete_multipart_upload", errors.OutcomeUnknownError),
        (
            boto.EndpointConnectionError(endpoint_url="http://x", error=aiohttp.ClientOSError(104, "reset")),
            "put_object",
            errors.OutcomeUnknownError,
        ),
        (
            boto.EndpointConnectionError(endpoint_url="http://x", error=ConnectionRefusedError(111, "refused")),
            "put_object",
            errors.TransientError,
        ),
        (
            boto.SSLError(endpoint_url="https://x", error=ssl.SSLCertVerificationError("self-signed")),
            "put_object",
            errors.InvalidRequestError,
        ),
        (aiohttp.ClientPayloadError("cut"), "get_object", errors.TransientError),
        (asyncio.TimeoutError(), "put_object", errors.OutcomeUnknownError),
        (boto.ParamValidationError(report="Invalid bucket name"), "get_object", errors.InvalidRequestError),
        (boto.ProfileNotFound(profile="x"), "open", errors.InvalidRequestError),
    ],
)
def test_a_request_without_an_answer_is_told_by_what_may_have_happened(
    error: Exception, method: str, expected: type[Exception]
) -> None:
    """A write that may have reached the service is never simply repeated."""
    assert type(s3.translate(error, method, "write", URL_OF_KEY)) is expected


def google(reason: str, message: str = "") -> bytes:
    """The body of an answer of Google's."""
    return json.dumps({"error": {"message": message, "errors": [{"reason": reason}]}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "changes", "expected"),
    [
        (401, google("authError", "Invalid Credentials"), False, errors.CredentialsExpiredError),
        (401, google("required", "Anonymous caller"), False, errors.NoCredentialsError),
        (403, google("forbidden"), True, errors.AccessDeniedError),
        (403, google("rateLimitExceeded"), True, errors.TransientError),
        (404, google("notFound"), False, errors.ObjectNotFoundError),
        (408, b"", True, errors.TransientError),
        (409, google("conflict"), True, errors.TransientError),
        (412, google("conditionNotMet"), True, errors.PreconditionFailedError),
        (416, b"", False, errors.PreconditionFailedError),
        (429, google("rateLimitExceeded"), True, errors.TransientError),
        (500, google("backendError"), True, errors.OutcomeUnknownError),
        (500, b"<html>", False, errors.TransientError),
        (503, google("backendError"), True, errors.OutcomeUnknownError),
        (503, google("backendError"), False, errors.TransientError),
        (400, google("invalid", "Invalid bucket name"), True, errors.InvalidRequestError),
        (501, b"", True, errors.InvalidRequestError),
    ],
)
def test_an_answer_of_gcs_is_told_by_status_and_reason(
    status: int, body: bytes, changes: bool, expected: type[Exception]
) -> None:
    """The body may be anything."""
    assert type(gcs.refused(status, body, "write", "gs://b/k", changes=changes)) is expected


def _connector_error(cause: OSError) -> aiohttp.ClientConnectorError:
    key = aiohttp.client_reqrep.ConnectionKey("x", 443, True, True, None, None, None)
    return aiohttp.ClientConnectorError(key, cause)


@pytest.mark.parametrize(
    ("error", "changes", "expected"),
    [
        (auth.DefaultCredentialsError("none"), False, errors.NoCredentialsError),
        (auth.RefreshError("expired"), False, errors.CredentialsExpiredError),
        (auth.TransportError("down"), True, errors.TransientError),
        (_connector_error(OSError(111, "refused")), True, errors.TransientError),
        (aiohttp.ServerDisconnectedError(), True, errors.OutcomeUnknownError),
        (aiohttp.ServerDisconnectedError(), False, errors.TransientError),
        (asyncio.TimeoutError(), True, errors.OutcomeUnknownError),
        (ValueError("bad option"), True, errors.InvalidRequestError),
    ],
)
def test_a_request_to_gcs_without_an_answer(error: Exception, changes: bool, expected: type[Exception]) -> None:
    """As for S3."""
    assert type(gcs.unanswered(error, "write", "gs://b/k", changes=changes)) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOENT, errors.ObjectNotFoundError),
        (errno.ENOTDIR, errors.ObjectNotFoundError),
        (errno.EACCES, errors.AccessDeniedError),
        (errno.EPERM, errors.AccessDeniedError),
        (errno.EROFS, errors.AccessDeniedError),
        (errno.EEXIST, errors.PreconditionFailedError),
        (errno.ENOSPC, errors.StoreFullError),
        (errno.EDQUOT, errors.StoreFullError),
        (errno.ELOOP, errors.InvalidRequestError),
        (errno.ENAMETOOLONG, errors.InvalidRequestError),
        (errno.EIO, errors.TransientError),
        (errno.ESTALE, errors.TransientError),
        (errno.ECONNRESET, errors.TransientError),
    ],
)
def test_an_error_of_the_system_is_told_by_its_number(code: int, expected: type[Exception]) -> None:
    """Local folders, and filesystems that speak through the system's errors."""
    assert type(_os_errors.translate(OSError(code, "reason"), "write", "/run/k")) is expected


class _HttpStatusError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__("client library's text")
        self.status_code = status_code


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FileNotFoundError("k"), errors.ObjectNotFoundError),
        (PermissionError("k"), errors.AccessDeniedError),
        (FileExistsError("k"), errors.PreconditionFailedError),
        (TimeoutError("slow"), errors.TransientError),
        (NotImplementedError("no writing"), errors.InvalidRequestError),
        (TypeError("unexpected keyword"), errors.InvalidRequestError),
        (_HttpStatusError(403), errors.AccessDeniedError),
        (_HttpStatusError(404), errors.ObjectNotFoundError),
        (_HttpStatusError(503), errors.TransientError),
        (RuntimeError("anything"), errors.TransientError),
    ],
)
def test_an_error_of_any_filesystem(error: Exception, expected: type[Exception]) -> None:
    """By errno, by Python's class, by an HTTP status that the client library tells."""
    assert type(_generic_errors.translate(error, "write", "az://b/k")) is expected


def test_our_own_errors_pass_a_translation_unchanged() -> None:
    """Even those that are OSErrors."""
    error = errors.ObjectNotFoundError("ours")
    for translated in (_os_errors.translated, _generic_errors.translated):
        with pytest.raises(errors.ObjectNotFoundError) as caught, translated("read", "x"):
            raise error
        assert caught.value is error


def _answer(status: int) -> aiohttp.ClientResponseError:
    url = yarl.URL("https://h/k")
    request = aiohttp.RequestInfo(url, "GET", multidict.CIMultiDictProxy(multidict.CIMultiDict()), url)
    return aiohttp.ClientResponseError(request, (), status=status)


def caused(cause: Exception) -> Exception:
    error = FileNotFoundError("https://h/k")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), errors.TransientError),
        (_connector_error(OSError(-2, "no such name")), errors.TransientError),
        (_answer(503), errors.TransientError),
        (_answer(403), errors.AccessDeniedError),
        (_answer(404), errors.ObjectNotFoundError),
        (KeyError("k"), errors.ObjectNotFoundError),
        (FileNotFoundError("k"), errors.ObjectNotFoundError),
    ],
)
def test_no_network_is_not_taken_for_no_object(cause, expected):
    """Though fsspec's HTTP says "not found" of both."""
    assert type(_generic_errors.translate(caused(cause), "read", "https://h/k")) is expected
