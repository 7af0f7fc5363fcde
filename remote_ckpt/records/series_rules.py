"""How a series is judged, shown and kept."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from remote_ckpt.policy import Mode


class SeriesRules(BaseModel):
    """The judging and retention of a series, needed by a commit beside the record. Stored in each seal.

    Attributes:
        monitor: The metric that decides.
        mode: Its direction.
        alias: For a template without fields: whether its fixed name shows the best or the latest.
        keep_best: Retention, see `policy.retained`.
        keep_last: Retention, see `policy.retained`.
    """

    model_config = ConfigDict(frozen=True)

    monitor: str
    mode: Mode
    alias: str | None = None
    keep_best: int | None = None
    keep_last: int | None = None
