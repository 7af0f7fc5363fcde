"""Signed manifests: with a key, a manifest is believed only if someone with the same key has written the manifest.

The signature is one more field of the manifest, an HMAC-SHA256 over all other fields. The manifest names each object
(and each segment of older records) with its sha256, and a loaded object is compared with this digest; so the objects
are covered too. Not covered:

- **Replay.** Whoever may write to the bucket can put an earlier signed manifest back, or another run's that was signed
  with the same key, together with its objects. Versioning or object lock in the bucket, or a key for each run, help.
- **Deletion.** A run whose manifest was deleted is empty, not forged.
- **Copies under a fixed name** (`best.weights.h5`), when they are fetched without this package.
- **Those who have the key**: it is shared, so each of them can sign.

A good key is 32 random bytes: `openssl rand -hex 32`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from typing import Any

from remote_ckpt.errors import SignatureError
from remote_ckpt.records import bounded_json

VARIABLE = "REMOTE_CKPT_SIGNING_KEY"
FIELD = "signature"
SHORTEST = 16
"""Fewest bytes of a key."""

_PURPOSE = b"remote_ckpt manifest\n"  # if the same key signs other data, such a signature is not valid for a manifest
_KIND = "hmac-sha256:"


class Signer:
    """A signer of manifests, which also verifies them. Immutable; threads: any.

    A signer without a key verifies nothing, and refuses to write to a signed manifest. The key is neither in the `repr`
    nor in a pickle: unpickling takes the key from the environment.
    """

    __slots__ = ("_adopting", "_key")

    def __init__(self, key: bytes | None = None, *, adopting: bool = False) -> None:
        """Store the key; `of` finds the user's key.

        Args:
            key: Any bytes; None verifies nothing and signs nothing.
            adopting: Believe also manifests that were not signed with this key. Written manifests are signed.
        """
        self._key = key
        self._adopting = adopting

    @classmethod
    def of(cls, key: bytes | str | None) -> Signer:
        """Return a signer with the given key, or else with the key in `REMOTE_CKPT_SIGNING_KEY`, if set.

        Raises:
            SignatureError: The key is empty, as when a job's configuration forgot the value, or has fewer than
                `SHORTEST` bytes and can be guessed.
            TypeError: The key is neither bytes nor text.
        """
        origin = "signing_key" if key is not None else VARIABLE
        given = os.environ.get(VARIABLE) if key is None else key
        if given is None:
            return cls()
        if not isinstance(given, bytes | bytearray | str):
            raise TypeError(f"signing_key is bytes or text, not {type(given).__name__}.")
        secret = given.encode("utf-8", "surrogateescape") if isinstance(given, str) else bytes(given)
        if not secret:
            raise SignatureError(f"{origin} is empty. Give a key, or none at all.")
        if len(secret) < SHORTEST:
            raise SignatureError(
                f"{origin} has {len(secret)} bytes, and whoever has the manifest can guess a key below {SHORTEST}. "
                "Make one: openssl rand -hex 32"
            )
        return cls(secret)

    def adopting(self) -> Signer:
        """Return a signer with the same key for manifests not yet signed with this key: signs without verifying."""
        return Signer(self._key, adopting=True)

    @property
    def has_key(self) -> bool:
        """Whether manifests must be signed."""
        return self._key is not None

    def verify(self, data: bytes, url: str) -> None:
        """Refuse a manifest not signed with the key. Without a key, or when adopting, do nothing.

        Args:
            data: The manifest as it was read.
            url: Its URL, for messages.

        Raises:
            SignatureError: The manifest is not signed, was signed with another key, or was changed after signing.
        """
        if self._key is None or self._adopting:
            return
        try:
            content = bounded_json.load(data)
        except ValueError as exc:
            raise SignatureError(f"{url} is not JSON, let alone signed: {exc}. Nothing was changed.") from exc
        found = content.pop(FIELD, None) if isinstance(content, dict) else None
        if not isinstance(found, str):
            raise SignatureError(
                f"{url} is not signed, and a signing key is set, so it was not believed. Nothing was changed. "
                "If you trust what it says, `remote-ckpt sign URL` signs it."
            )
        # In constant time: the time of an ordinary comparison would reveal how many characters are right.
        if not hmac.compare_digest(found.encode(errors="replace"), self._signature(content).encode()):
            raise SignatureError(
                f"{url} was signed with another key, or changed by someone who does not have the key. It was not "
                "believed, and nothing was changed. Check the signing key; with versioning switched on, the bucket "
                "may hold an earlier version."
            )

    def sign(self, data: bytes, url: str) -> bytes:
        """Return a manifest with a new signature in place of the old; without a key, return `data` unchanged.

        Args:
            data: The JSON of a manifest, before it is written.
            url: Its URL, for messages.

        Raises:
            SignatureError: The manifest is signed and there is no key: writing it would break the signature.
        """
        if self._key is None and f'"{FIELD}"'.encode() not in data:
            return data
        content = json.loads(data)
        if self._key is None:
            self.require_key(content, url)
            return data
        content.pop(FIELD, None)
        content[FIELD] = self._signature(content)
        return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"

    def require_key(self, fields: dict[str, Any] | None, url: str) -> None:
        """Refuse to write to a signed manifest without a key.

        Args:
            fields: The manifest's fields, or only the fields unknown to the model (`model_extra`).
            url: Its URL, for messages.

        Raises:
            SignatureError: The manifest is signed, and there is no key.
        """
        if self._key is None and fields and FIELD in fields:
            raise SignatureError(
                f"{url} is signed, and writing to it without the key would break the signature. Nothing was changed. "
                f"Pass signing_key=…, or set {VARIABLE}."
            )

    def _signature(self, content: dict[str, Any]) -> str:
        """Return the signature for an unsigned manifest. White space and the order of keys make no difference."""
        assert self._key is not None
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        return _KIND + hmac.new(self._key, _PURPOSE + canonical, hashlib.sha256).hexdigest()

    def __repr__(self) -> str:
        return f"Signer({'with a key' if self.has_key else 'without a key'})"

    def __deepcopy__(self, _memo: dict[int, Any]) -> Signer:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_unpickled, (self.has_key,))


UNSIGNED = Signer()
"""The signer without a key."""


def _unpickled(had_key: bool) -> Signer:
    if not had_key:
        return UNSIGNED
    signer = Signer.of(None)
    if not signer.has_key:
        raise SignatureError(f"A signing key does not travel in a pickle. Set {VARIABLE} where it is unpickled.")
    return signer
