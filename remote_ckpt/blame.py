"""Whose fault it is that a checkpoint could not be published: its own, or the run's.

A checkpoint that the store can never accept must not hold up those behind it; and a store that is down must not make
each of them look unacceptable. The class of an error alone does not decide: a wrong region and a name that is too long
are both an `InvalidRequestError`. So the run is looked at: if its manifest can be read, the fault is the checkpoint's.
"""

from __future__ import annotations

import enum

from remote_ckpt.commit import Committer
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

_PASSES = (TransientError, CommitConflictError, CommitOutcomeUnknownError)
_OF_THE_RUN = (BucketNotFoundError, NoCredentialsError, StoreFullError)
_FOR_GOOD = (InvalidRequestError, LocationError, ManifestError, CredentialsExpiredError)
"""Errors that never pass where the run itself can be read.

S3 answers 400 without a reason to a HEAD, of a key that is too long as of expired credentials: hence the last of them.
"""


class Blame(enum.Enum):
    """What a failure to publish one checkpoint means for the others.

    Attributes:
        RUN: All would fail, or the failure will pass: wait, then try again in order.
        UNCLEAR: Perhaps this one alone (access denied to one folder): try the others, and this one again later.
        CHECKPOINT: This one is never accepted: try the others, and leave this one in the spool.
    """

    RUN = enum.auto()
    UNCLEAR = enum.auto()
    CHECKPOINT = enum.auto()


def blame(error: BaseException, committer: Committer) -> Blame:
    """Return whose fault a failure to publish is. May ask the store, so call it without a lock."""
    if isinstance(error, (*_PASSES, *_OF_THE_RUN)):
        return Blame.RUN
    if not isinstance(error, _FOR_GOOD):
        return Blame.UNCLEAR
    try:
        committer.load(to_write=True)
    except Exception:  # noqa: BLE001 - whatever keeps the manifest from being read, it is not the checkpoint
        return Blame.RUN
    return Blame.CHECKPOINT
