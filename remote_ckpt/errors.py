"""All errors raised on purpose in this package.

::

    RemoteCkptError
    ├── LocationError (ValueError)            a URL, path or filename template cannot be used
    │   └── TemplateError (KeyError)          a template names a metric that was not logged
    ├── DirectionError (ValueError)           the direction of a metric is not known
    ├── ManifestError (ValueError)            manifest.json is damaged or not valid
    │   ├── ManifestVersionError              written by a newer remote_ckpt
    │   └── SignatureError                    not signed with the given key; or signed, and no key to write with
    ├── NoCheckpointError (LookupError)       the run holds no (such) checkpoint
    ├── CorruptCheckpointError (ValueError)   bytes differ from their digest, or the file is not safe to load
    ├── ArchitectureError (ValueError)        the checkpoint has weights that the model lacks, or the reverse
    ├── SpoolError (OSError)                  the local spool cannot be used
    │   └── SpoolFullError                    the disk, or the spool's limit, is full
    ├── DrainError (TimeoutError)             flush or close ended with checkpoints not yet in the bucket
    ├── SaveFailedError                       a checkpoint was lost, or (on_error="raise") could not be published yet
    ├── WriterStateError (RuntimeError)       a writer was used before it was opened, or after it was closed
    ├── CopyError (TypeError)                 an object with threads and locks cannot be copied or pickled
    ├── CommitConflictError                   other writers won every round until the time was up
    ├── CommitOutcomeUnknownError             the last answer was lost; the commit may have happened
    └── StoreError                            an object store refused, or did not answer
        ├── TransientError                    worth trying again: timeout, reset, 429, 5xx
        │   └── OutcomeUnknownError           a write whose answer was lost: look before you try again
        ├── CredentialsExpiredError           rebuild the filesystem once, then try again
        ├── PreconditionFailedError           "only if the version is X"; it was not
        ├── ObjectNotFoundError (FileNotFoundError)
        ├── BucketNotFoundError (FileNotFoundError)
        ├── AccessDeniedError (PermissionError)
        │   └── NoCredentialsError
        ├── StoreFullError (OSError)          the store, or the disk behind it, is full
        └── InvalidRequestError (ValueError)  the store will never accept this request

If Python has an error with the same meaning, the class is also a subclass of Python's error (in brackets above), so
that code which handles only Python's errors works too. `retry` decides by these classes alone, never by the text of a
message or by a foreign class.
"""

from __future__ import annotations


class RemoteCkptError(Exception):
    """The base class of all errors raised on purpose in this package."""

    def __str__(self) -> str:
        """Return the message without quotes (KeyError adds quotes) and with control characters replaced.

        Parts of a message come from buckets and servers, and terminals obey control characters.
        """
        text = str(self.args[0]) if self.args else ""
        return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


class LocationError(RemoteCkptError, ValueError):
    """A URL, path or filename template cannot be used; the message suggests a correction."""


class TemplateError(LocationError, KeyError):
    """A filename template has a field missing from the logs, or a format not suitable for the value."""


class DirectionError(RemoteCkptError, ValueError):
    """The direction of a metric ("min" or "max") is not known; pass `mode`."""


class ManifestError(RemoteCkptError, ValueError):
    """The manifest is damaged, too large or not valid, or would be after a write; or a segment is lost or damaged."""


class ManifestVersionError(ManifestError):
    """The manifest was written by a newer version of this package; this version never changes such a manifest."""


class SignatureError(ManifestError):
    """The manifest is not signed with the given key; or a signed manifest cannot be changed without a key."""


class NoCheckpointError(RemoteCkptError, LookupError):
    """The run holds no checkpoint, or not the requested checkpoint."""


class CorruptCheckpointError(RemoteCkptError, ValueError):
    """The bytes differ from the recorded digest, or the file is not safe to load."""


class ArchitectureError(RemoteCkptError, ValueError):
    """A model and a checkpoint do not fit: weights are missing on one side. The model is unchanged."""


class SpoolError(RemoteCkptError, OSError):
    """The local spool cannot be used: read-only, vanished, foreign."""


class SpoolFullError(SpoolError):
    """The local disk is full, or the spool has reached its limit."""


class DrainError(RemoteCkptError, TimeoutError):
    """`flush` or `close` ended while checkpoints were not yet in the bucket; they wait in the spool."""


class SaveFailedError(RemoteCkptError):
    """A checkpoint was lost, or with `on_error="raise"` could not be published yet; `__cause__` is the reason."""


class WriterStateError(RemoteCkptError, RuntimeError):
    """A writer was used before opening, after closing, or in a forked process. Nothing was done."""


class CopyError(RemoteCkptError, TypeError):
    """An object with threads and locks cannot be copied or pickled; the message names an alternative."""


class CommitConflictError(RemoteCkptError):
    """Other writers won every round until the time budget ran out. Nothing was changed; trying later is safe."""


class CommitOutcomeUnknownError(RemoteCkptError):
    """The answer to the last conditional write was lost; the commit may be visible. Delete nothing."""


class StoreError(RemoteCkptError):
    """An object store refused or failed. The message names the operation and the URL, never a secret."""


class TransientError(StoreError):
    """The same request may succeed later: timeout, connection reset, 408, 429, 5xx, SlowDown."""


class OutcomeUnknownError(TransientError):
    """A write was sent and the answer was lost; the write may have been applied. Read before trying again."""


class CredentialsExpiredError(StoreError):
    """The session's credentials have expired; a fresh filesystem may find new ones."""


class PreconditionFailedError(StoreError):
    """A conditional write was refused: the object exists already, or has another version."""


class ObjectNotFoundError(StoreError, FileNotFoundError):
    """No object has this key."""


class BucketNotFoundError(StoreError, FileNotFoundError):
    """The bucket itself does not exist."""


class AccessDeniedError(StoreError, PermissionError):
    """The store forbids the request. The object may exist: never treat this error as "not found"."""


class NoCredentialsError(AccessDeniedError):
    """No credentials were found at all."""


class StoreFullError(StoreError, OSError):
    """The store, or the disk behind the store, has no room or no quota left."""


class InvalidRequestError(StoreError, ValueError):
    """The store will never accept this request without a change."""
