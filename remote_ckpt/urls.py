"""URLs of stores: recognition, refusal of mistyped URLs, and redaction of secret parts."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterator, Mapping
from typing import Any

from remote_ckpt.errors import LocationError

LOCAL = ("file", "local")
"""Protocols of this machine's disks: the text after `://` is a path, as in fsspec."""

BUCKETS = ("s3", "s3a", "gs", "gcs")
"""Protocols whose first part is a bucket, and whose keys never begin with a slash."""

_STORES = (
    *("s3", "s3a", "s3n", "gs", "gcs", "az", "abfs", "abfss", "adl", "wasb", "wasbs", "azure", "oss", "oci", "cos"),
    *("obs", "b2", "r2", "minio", "swift", "hdfs", "webhdfs", "dbfs", "hf", "http", "https", "ftp", "sftp", "ssh"),
    *("smb", "webdav", "file", "local", "memory"),
)
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(://|::)")
_ALMOST = re.compile(
    rf"(?P<known>{'|'.join(sorted(_STORES, key=len, reverse=True))})(?:[:;]/{{0,2}}|[:;]?//+|:\\+)(?P<rest>.*)"
    r"|(?P<any>[a-z][a-z0-9+.-]+):/(?P<path>.*)",
    re.IGNORECASE | re.DOTALL,
)
_HOST = re.compile(r"[\w.-]+\.(amazonaws\.com|googleapis\.com|core\.windows\.net|r2\.cloudflarestorage\.com)(/|$)")
_AROUND = " \t\r\n\f\v\u00a0\u200b\ufeff\"'`“”‘’"  # characters that word processors and env files put around a URL
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|arn:[\w+=,.@:-]+")

_PASSWORD = re.compile(r"(//[^/@:\s]*):[^/\s]*@")  # up to the last @: some passwords have one
_SLASHED = re.compile(r"(//[^/@:\s\[]*):(?!\d+/)[^/@\s]*/\S*@")  # a slash in a password should have been written %2F
_TOKEN = re.compile(r"(\b(?:https?|webdavs?|davs?)(?:\+https?)?://)[^/@:\s]+@", re.IGNORECASE)
_QUERY = re.compile(
    r"([?&;](?:x-(?:amz|goog|oss)-(?:signature|credential|security-token)|signature|sig|awsaccesskeyid|googleaccessid|"
    r"(?:access_?|auth_?|id_?|refresh_?)?token|api_?key|secret|password|pwd|key)=)[^&\s'\"<>)]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return a URL, or a text with URLs, with the secret parts replaced by stars.

    Secret are a password (`sftp://user:password@host`), a token in place of a user (`https://token@host`), and
    signatures, keys and tokens in a query.
    """
    text = _SLASHED.sub(r"\1:***@", _PASSWORD.sub(r"\1:***@", text))
    return _QUERY.sub(r"\1***", _TOKEN.sub(r"\1***@", text))


def text_of(url: str | os.PathLike[str]) -> str:
    """Return the user's URL or path as text.

    For an object that stands for a path in a bucket (of cloudpathlib, or UPath) return its URL. `os.fspath` of such an
    object could download the file and return the path of the local copy.

    Raises:
        LocationError: `url` is neither text nor a path.
    """
    shown = str(url)
    if isinstance(url, str) or _URL.match(shown):
        return shown
    try:
        text = os.fspath(url)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise LocationError(f"Expected a URL or a path such as 's3://bucket/run', got {redact(repr(url))}.")
    return text


def options_of(url: object) -> dict[str, Any]:
    """Return the `storage_options` of a path object such as UPath (endpoint, profile), for fsspec; else no options."""
    found = None if isinstance(url, str) else getattr(url, "storage_options", None)
    return dict(found) if isinstance(found, Mapping) else {}


def split(text: str) -> tuple[str, str]:
    """Return the protocol of a URL or path, and the text for the store; for a local path without `file://`.

    Raises:
        LocationError: The text is neither a valid URL nor clearly a path; the message suggests a correction.
    """
    _check_characters(text)
    match = _URL.match(text)
    if match is None:
        _check_path(text)
        return "file", text
    protocol, separator = match.groups()
    if protocol != protocol.lower() or ":://" in text:
        raise _wrong(text, f"{protocol.lower()}://{text[match.end() :].lstrip(':/')}")
    if protocol in LOCAL and separator == "://":
        return "file", text[match.end() :]
    _check_url(text)
    return protocol, _without_empty_beginning(protocol, text)


def _check_characters(text: str) -> None:
    if not text.strip():
        raise LocationError(f"Expected a URL or a path such as 's3://bucket/run', got {text!r}.")
    bare = text.strip(_AROUND)
    quoted = text.strip()[0] in _AROUND and text.strip()[-1:] == text.strip()[0]
    if bare != text and (quoted or _URL.match(bare) or _ALMOST.match(bare)):
        raise _wrong(text, bare)
    if _CONTROL.search(text):
        raise LocationError(f"{redact(text)!r} holds a control character; no URL or path of a run does.")


def _check_path(text: str) -> None:
    """Refuse a mistyped URL instead of creating a local folder of this name."""
    if text.startswith("arn:"):
        _, _, name = text.partition(":::")
        raise _wrong(text, f"s3://{name or text}")
    if found := _HOST.match(text):
        raise _wrong(text, f"https://{text}" if found[1] != "amazonaws.com" else "s3://bucket/run")
    if (almost := _ALMOST.match(text)) is None:
        return
    scheme = (almost["known"] or almost["any"]).lower()
    if scheme == "dbfs":
        raise _wrong(text, f"/dbfs/{almost['rest'].lstrip('/')}")
    raise LocationError(
        f"'{text[: almost.start('rest' if almost['known'] else 'path')]}…' is no URL: write '{scheme}://…', as text "
        f"(pathlib.Path takes a slash away). A folder of that name is './{scheme}…'."
    )


def _check_url(text: str) -> None:
    """Refuse a URL not able to name a run, or easily misread as the name of another run."""
    protocol, _, rest = text.rpartition("::")[2].partition("://")
    place, _, key = rest.partition("/")
    if protocol in LOCAL:  # for example `simplecache::file://…`
        return
    if "{" in place or not _names_place(protocol, place):
        raise LocationError(f"{redact(text)!r} names no bucket. Write '{protocol}://bucket/run/…'.")
    if protocol not in BUCKETS and "@" in key and re.fullmatch(r"[^@]*:(?!\d*$)[^@]*", place):
        raise LocationError(f"{redact(text)!r} has a password with a slash. Write the slash as %2F.")
    literal = "".join(_literals(rest))
    if found := re.search(r"[?#\\]", literal):
        raise LocationError(
            f"{redact(text.partition(found[0])[0])!r} is followed by {found[0]!r}: a run's URL has no query, version, "
            "fragment or backslash. Leave it out."
        )
    if any(part in (".", "..") for part in key.split("/")):
        raise LocationError(f"{redact(text)!r} has a part '.' or '..', which means nothing in a bucket. Leave it out.")


def _names_place(protocol: str, place: str) -> bool:
    """Return whether a URL's first part may be a bucket or a host. For `memory` the part may be empty."""
    return _BUCKET.fullmatch(place) is not None if protocol in BUCKETS else bool(place) or protocol == "memory"


def _literals(text: str) -> Iterator[str]:
    """Yield the literal parts of a filename template. The formats inside fields may hold any character."""
    try:
        yield from (literal for literal, _, _, _ in string.Formatter().parse(text))
    except ValueError:  # an unmatched brace; `Template` reports it
        yield text


def _without_empty_beginning(protocol: str, text: str) -> str:
    """Return `s3://b/run` for `s3://b//run`: objects were always stored without the empty part."""
    if protocol not in BUCKETS:
        return text
    head, _, rest = text.partition("://")
    bucket, slash, key = rest.partition("/")
    return f"{head}://{bucket}{slash}{key.lstrip('/')}"


def _wrong(text: str, right: str) -> LocationError:
    return LocationError(f"{redact(text)!r} is no URL that is known here. Did you mean {redact(right)!r}?")
