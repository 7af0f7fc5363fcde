"""Descriptions of the source of a store's credentials; never the credentials themselves."""

from __future__ import annotations

from typing import Any

from remote_ckpt.errors import NoCredentialsError
from remote_ckpt.location import Location

_S3_METHODS = {
    "env": "environment variables (AWS_ACCESS_KEY_ID, …)",
    "shared-credentials-file": "the shared credentials file (~/.aws/credentials)",
    "config-file": "the configuration file (~/.aws/config)",
    "iam-role": "the instance's role",
    "container-role": "the container's role",
    "assume-role": "a role that a profile assumes",
    "assume-role-with-web-identity": "a role for a web identity (Kubernetes, CI)",
    "sso": "AWS IAM Identity Center (aws sso login)",
    "custom-process": "a credential process",
}
_GCS_METHODS = {
    "google_default": "Google's application default credentials",
    "cache": "gcsfs's cache of tokens",
    "cloud": "the instance's service account",
    "anon": "none: anonymous access",
}


def describe(location: Location, options: dict[str, Any]) -> str:
    """Return a description of the source of a run's credentials.

    May send a request to the instance's metadata service; sends none to the store.

    Args:
        location: The run.
        options: fsspec's arguments for its store.

    Raises:
        NoCredentialsError: There are none; the message says what to do.
        StoreError: The client library cannot look for credentials, for example with an unknown profile.
    """
    if location.protocol in ("file", "local", "memory"):
        return "none are needed"
    if location.protocol in ("s3", "s3a"):
        return _s3(location, options)
    if location.protocol in ("gs", "gcs"):
        return _gcs(location, options)
    return "storage_options" if options else f"whatever fsspec finds for {location.protocol}://"


def _s3(location: Location, options: dict[str, Any]) -> str:
    import botocore.exceptions
    import botocore.session
    import fsspec

    given = {**fsspec.config.conf.get("s3", {}), **options}
    nested = given.get("client_kwargs") or {}
    if given.get("anon"):
        return "none: anonymous access (anon=True)"
    if given.get("key") or given.get("username") or nested.get("aws_access_key_id"):
        return "storage_options"
    from remote_ckpt.stores.s3.errors import translate

    try:
        found = botocore.session.Session(profile=given.get("profile")).get_credentials()
        if found is None:
            raise botocore.exceptions.NoCredentialsError
    except botocore.exceptions.BotoCoreError as exc:
        raise translate(exc, "open", "reach", location.name) from exc
    return _S3_METHODS.get(found.method, str(found.method))


def _gcs(location: Location, options: dict[str, Any]) -> str:
    from remote_ckpt.stores.gcs.session import GcsSession

    method = GcsSession(location, options).credentials_method
    if method == "anon" and options.get("token") != "anon":
        raise NoCredentialsError(
            f"No credentials for {location.name} were found; requests are anonymous. Run 'gcloud auth "
            "application-default login', set GOOGLE_APPLICATION_CREDENTIALS, or pass storage_options={'token': …}."
        )
    return "storage_options" if method is None else _GCS_METHODS.get(method, method)
