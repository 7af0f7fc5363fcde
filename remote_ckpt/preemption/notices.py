"""Preemption notices from EC2's and Compute Engine's metadata servers, by the standard library alone.

Sources: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html,
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html and
https://cloud.google.com/compute/docs/instances/create-use-preemptible#detecting_if_an_instance_was_preempted.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

EC2_SECONDS = 120.0
"""Seconds between a spot interruption notice and the interruption."""

GCE_SECONDS = 30.0
"""Seconds between the preemption of a spot machine and the moment when the machine is switched off."""

METADATA_TIMEOUT = 1.0
"""Seconds for each connection and each read: a metadata server is on the same host, and off-cloud nobody answers."""

_LIMIT = 1 << 12  # bytes; no answer of a metadata server is as long
_ACTIONS = ("terminate", "stop", "hibernate")


@dataclass(frozen=True)
class Notice:
    """A notice of the end of this machine or process.

    Attributes:
        source: The sender, for people.
        deadline: The time of the end, by `time.monotonic()`.
    """

    source: str
    deadline: float

    @classmethod
    def within(cls, source: str, seconds: float) -> Notice:
        """Return a notice of an end in `seconds` from now."""
        return cls(source, time.monotonic() + seconds)

    @property
    def seconds_left(self) -> float:
        """Seconds until the end; never negative."""
        return max(0.0, self.deadline - time.monotonic())


class Cloud(Protocol):
    """A source of preemption notices."""

    name: str

    def look(self) -> Notice | None:
        """Return the notice, or None while there is none.

        Blocks for a few requests, each of a few times `METADATA_TIMEOUT`; the time to look up a host's name is not
        limited.

        Raises:
            OSError: There is no answer, or it is not a metadata server's.
            ValueError, http.client.HTTPException: The answer breaks HTTP, or the token does not fit into a header.
        """


@dataclass
class Ec2:
    """EC2's instance metadata service, version 2: with a token, renewed after a refusal.

    Attributes:
        endpoint: The URL of the service.
        rebalance: Whether a recommendation to rebalance, which often comes earlier, is a notice too.
    """

    endpoint: str
    rebalance: bool = False
    name: str = "EC2"
    _token: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, rebalance: bool = False) -> Ec2 | None:
        """Return the service at `AWS_EC2_METADATA_SERVICE_ENDPOINT`; None if `AWS_EC2_METADATA_DISABLED` is true."""
        if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            return None
        return cls(os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254", rebalance)

    def look(self) -> Notice | None:
        """Ask for the spot interruption notice, then (with `rebalance`) for the recommendation."""
        answer = self._get("spot/instance-action")
        if answer is not None:
            told = _object(answer)
            if told.get("action") not in _ACTIONS:
                raise OSError(f"{self.endpoint} names no action that EC2 has")
            return Notice.within("EC2 spot interruption notice", _seconds_until(told.get("time")))
        answer = self._get("events/recommendations/rebalance") if self.rebalance else None
        if answer is not None:
            _seconds_until(_object(answer).get("noticeTime"))
            return Notice.within("EC2 rebalance recommendation", EC2_SECONDS)
        return None

    def _get(self, path: str) -> bytes | None:
        for _ in range(2):  # a kept token may have expired, which EC2 answers by 401; then once more with a new one
            fresh = self._token is None
            token = self._token = self._token or self._new_token()
            try:
                url = f"{self.endpoint.rstrip('/')}/latest/meta-data/{path}"
                return _ask(url, {"X-aws-ec2-metadata-token": token})[0]
            except urllib.error.HTTPError as exc:
                if exc.code == 404:  # EC2's answer while there is no such notice
                    return None
                self._token = None  # also where this error is raised: the next question begins with a new token
                if fresh or exc.code != 401:
                    raise
        raise AssertionError

    def _new_token(self) -> str:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
        return _ask(f"{self.endpoint.rstrip('/')}/latest/api/token", headers, "PUT")[0].decode("ascii", "replace")


@dataclass
class Gce:
    """Compute Engine's metadata server.

    Attributes:
        endpoint: The URL of the server.
    """

    endpoint: str
    name: str = "Compute Engine"

    @classmethod
    def from_environment(cls) -> Gce | None:
        """Return the server `GCE_METADATA_HOST`; None if `NO_GCE_CHECK` is true, as for Google's own libraries."""
        if os.environ.get("NO_GCE_CHECK", "").lower() == "true":
            return None
        return cls(f"http://{os.environ.get('GCE_METADATA_HOST') or 'metadata.google.internal'}")

    def look(self) -> Notice | None:
        """Ask whether this machine was preempted."""
        url = f"{self.endpoint.rstrip('/')}/computeMetadata/v1/instance/preempted"
        answer, flavor = _ask(url, {"Metadata-Flavor": "Google"})
        if flavor != "Google":  # another server, such as a captive portal
            raise OSError(f"{self.endpoint} is no metadata server of Compute Engine")
        if answer.strip() not in (b"TRUE", b"FALSE"):
            raise OSError(f"{self.endpoint} says neither TRUE nor FALSE")
        return Notice.within("Compute Engine preemption notice", GCE_SECONDS) if answer.strip() == b"TRUE" else None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuse redirects: a redirect would carry the token to another host."""

    def redirect_request(self, *_: object) -> None:
        """Return None: no second request, so the redirect is raised as an HTTPError."""


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())  # no proxy: on this host


def _ask(url: str, headers: dict[str, str], method: str = "GET") -> tuple[bytes, str | None]:
    """Return an answer's body and `Metadata-Flavor` header.

    Raises:
        OSError: There is no answer, or its body is too long, or comes too slowly.
    """
    request, until = (
        urllib.request.Request(url, headers=headers, method=method),
        time.monotonic() + 2 * METADATA_TIMEOUT,
    )
    with _OPENER.open(request, timeout=METADATA_TIMEOUT) as answer:
        pieces: list[bytes] = []
        # The timeout is for each read alone: a server that sends a byte now and then would never exceed it.
        while piece := answer.read1(_LIMIT):
            pieces.append(piece)
            if sum(map(len, pieces)) > _LIMIT or time.monotonic() > until:
                raise OSError(f"{url} gives more than a metadata server would, or too slowly")
        return b"".join(pieces), answer.headers.get("Metadata-Flavor")


def _object(answer: bytes) -> dict[str, Any]:
    """Return a notice's fields, from JSON.

    A captive portal answers every request with a page of its own. Taken for a notice, such a page would end each
    training in its first epoch.

    Raises:
        OSError: The answer is no JSON object.
    """
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError) as exc:  # RecursionError: deeply nested lists fit into `_LIMIT` bytes
        raise OSError("what was answered is not JSON, so no notice") from exc
    if not isinstance(told, dict):
        raise OSError("what was answered is no JSON object, so no notice")
    return told


def _seconds_until(time_told: object) -> float:
    """Return the seconds until a time such as `2026-01-01T08:22:00Z`: from 0 to `EC2_SECONDS`.

    Raises:
        OSError: `time_told` is no such time.
    """
    try:
        when = datetime.strptime(str(time_told), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError as exc:
        raise OSError("what was answered holds no time, so no notice") from exc
    return min(max(0.0, (when - datetime.now(timezone.utc)).total_seconds()), EC2_SECONDS)
