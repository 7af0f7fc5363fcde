"""Every error this package raises on purpose.

::

    RemoteCkptError
    ├── LocationError (ValueError)            a URL, path or filename template we cannot use
    │   └── TemplateError (KeyError)          a template names a metric that was not logged
    ├── DirectionError (ValueError)           nothing shows which way a metric is better
    ├── ManifestError (ValueError)            manifest.json is not what it must be
    │   ├── ManifestVersionError              written by a newer remote_ckpt
    │   └── SignatureError                    not signed with our key, or signed and we have none to write with
    ├── NoCheckpointError (LookupError)       the run holds no (such) checkpoint
    ├── CorruptCheckpointError (ValueError)   bytes differ from their digest, or the file is not safe to load
    ├── ArchitectureError (ValueError)        the checkpoint has weights that the model lacks, or the reverse
    ├── SpoolError (OSError)                  the local spool cannot be used
    │   └── SpoolFullError                    the disk, or the spool's limit, is full
    ├── DrainError (TimeoutError)             flush or close ended with checkpoints not yet in the bucket
    ├── SaveFailedError                       a background save failed; told by flush, or by on_error="raise"
    ├── WriterStateError (RuntimeError)       a writer was used before it was opened, or after it was closed
    ├── CopyError (TypeError)                 a thing with threads and locks of its own cannot be copied or pickled
    ├── CommitConflictError                   other writers won every round until the time was up
    ├── CommitOutcomeUnknownError             the last answer was lost; the commit may have happened
    └── StoreError                            an object store said no, or nothing
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

Those that have an equal among Python's own errors also are that error, so that code which knows only Python does the
right thing. `retry` decides on these classes alone, never on a text or on a foreign class.
"""

from __future__ import annotations


class RemoteCkptError(Exception):
    """The root: catch it to catch whatever this package raises on purpose."""

    def __str__(self) -> str:
        """Return the message (KeyError would quote it), as a terminal can show it.

        Parts of it come from buckets and servers, and terminals obey control characters.
        """
        text = str(self.args[0]) if self.args else ""
        return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


class LocationError(RemoteCkptError, ValueError):
    """A URL, path or filename template that cannot be used; the message says what to write instead."""


class TemplateError(LocationError, KeyError):
    """A filename template names a field that is not among the logs."""


class DirectionError(RemoteCkptError, ValueError):
    """Nothing shows which way a metric is better; `mode` has to."""


class ManifestError(RemoteCkptError, ValueError):
    """The manifest is not JSON, not a manifest, too large, or names what it must not name."""


class ManifestVersionError(ManifestError):
    """The manifest was written by a newer version of this package. It is never rewritten by this one."""


class SignatureError(ManifestError):
    """The manifest is not signed with the given key; or it is signed, and there is no key to write it with."""


class NoCheckpointError(RemoteCkptError, LookupError):
    """The run holds no checkpoint, or none that was asked for."""


class CorruptCheckpointError(RemoteCkptError, ValueError):
    """Bytes that differ from the recorded digest, or a file that is not safe to load."""


class ArchitectureError(RemoteCkptError, ValueError):
    """A model and a checkpoint that do not fit: weights would be missing on one side. The model is as it was before."""


class SpoolError(RemoteCkptError, OSError):
    """The local spool cannot be used: read-only, vanished, foreign."""


class SpoolFullError(SpoolError):
    """The local disk is full, or the spool has reached its limit."""


class DrainError(RemoteCkptError, TimeoutError):
    """`flush` or `close` ended while checkpoints were not yet in the bucket; they wait in the spool."""


class SaveFailedError(RemoteCkptError):
    """A checkpoint was lost, or with `on_error="raise"` could not be published yet; `__cause__` says why."""


class WriterStateError(RemoteCkptError, RuntimeError):
    """A writer was used before it was opened, after it was closed, or in a forked process. Nothing was done."""


class CopyError(RemoteCkptError, TypeError):
    """A thing that has threads and locks of its own cannot be copied or pickled; the message names what can be."""


class CommitConflictError(RemoteCkptError):
    """Other writers won every round until the time budget ran out. Nothing was changed; trying later is safe."""


class CommitOutcomeUnknownError(RemoteCkptError):
    """The answer to the last conditional write was lost; the commit may be visible. Delete nothing."""


class StoreError(RemoteCkptError):
    """An object store refused or failed. The message names the operation and the URL, never a secret."""


class TransientError(StoreError):
    """The same request may succeed later: timeout, connection reset, 408, 429, 5xx, SlowDown."""


class OutcomeUnknownError(TransientError):
    """A write was sent and its answer was lost: it may have been applied. Look before trying again."""


class CredentialsExpiredError(StoreError):
    """The session's credentials have expired; a fresh filesystem may find new ones."""


class PreconditionFailedError(StoreError):
    """A conditional write was refused: the object exists, or its version is another one."""


class ObjectNotFoundError(StoreError, FileNotFoundError):
    """No object has this key."""


class BucketNotFoundError(StoreError, FileNotFoundError):
    """The bucket itself does not exist."""


class AccessDeniedError(StoreError, PermissionError):
    """The store forbids it. Never to be read as "there is nothing"."""


class NoCredentialsError(AccessDeniedError):
    """No credentials were found at all."""


class StoreFullError(StoreError, OSError):
    """The store, or the disk behind it, has no room or no quota left."""


class InvalidRequestError(StoreError, ValueError):
    """The store will never accept this request as it stands."""
