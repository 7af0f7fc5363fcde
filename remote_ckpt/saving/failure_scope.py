"""Find out why a checkpoint could not be published: because of this checkpoint, or because of the run.

A checkpoint that the store can never accept must not hold up the others. A store that is down must not make every
checkpoint look unacceptable. The class of the error is not enough to decide: a wrong region and a name that is too long
both give an `InvalidRequestError`. So the manifest is read. If that succeeds, the checkpoint is to blame.
"""

from __future__ import annotations

import enum

from remote_ckpt.errors import (
    BucketNotFoundError,
    CommitConflictError,
    CommitOutcomeUnknownError,
    CredentialsExpiredError,
    InvalidRequestError,
    LocationError,
    ManifestError,
    NoCredentialsError,
    StoreFullError,
    TransientError,
)
from remote_ckpt.manifest import Committer

_PASSES = (TransientError, CommitConflictError, CommitOutcomeUnknownError)
_OF_THE_RUN = (BucketNotFoundError, NoCredentialsError, StoreFullError)
_FOR_GOOD = (InvalidRequestError, LocationError, ManifestError, CredentialsExpiredError)
"""Errors that no later attempt avoids, provided that the manifest can be read.

S3 answers a HEAD with 400 and no reason, both for a key that is too long and for expired credentials. That is why
`CredentialsExpiredError` is here.
"""


class Blame(enum.Enum):
    """The meaning, for the other checkpoints, of a failure to publish a checkpoint.

    Attributes:
        RUN: All checkpoints would fail, or the failure will pass: wait, then try again in order.
        UNCLEAR: Perhaps only this checkpoint fails (access denied to one folder): try the others, and this again later.
        CHECKPOINT: This checkpoint will never be accepted: try the others, and leave this in the spool.
    """

    RUN = enum.auto()
    UNCLEAR = enum.auto()
    CHECKPOINT = enum.auto()


def blame(error: BaseException, committer: Committer) -> Blame:
    """Return the cause of a failure to publish. May read the manifest from the store: hold no lock."""
    if isinstance(error, (*_PASSES, *_OF_THE_RUN)):
        return Blame.RUN
    if not isinstance(error, _FOR_GOOD):
        return Blame.UNCLEAR
    try:
        committer.load(to_write=True)
    except Exception:  # noqa: BLE001 - the manifest cannot be read, so the checkpoint is not the cause
        return Blame.RUN
    return Blame.CHECKPOINT
