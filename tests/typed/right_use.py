"""A user's program; what a type checker makes of each part of the interface is said beside it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from typing_extensions import assert_type

from remote_ckpt import (
    Checkpoint,
    DrainError,
    FoundRun,
    NoCheckpointError,
    PreemptionGuard,
    RemoteCkptError,
    RemoteModelCheckpoint,
    Run,
    Transfer,
    find_runs,
    load_best,
    load_latest,
)


def train(model: object) -> None:
    checkpoint = RemoteModelCheckpoint(
        Path("runs/pima/{epoch:02d}.weights.h5"),
        monitor="val_accuracy",
        mode="max",
        save_best_only=True,
        resume="latest",
        keep_best=3,
        keep_last=None,
        riders=[object()],
        storage_options={"anon": True},
        transfer=Transfer(max_bandwidth=1e6),
        preemption=PreemptionGuard(),
    )
    assert_type(checkpoint.best, float | None)
    assert_type(checkpoint.run, Run)
    assert_type(checkpoint.resumed_from, Checkpoint | None)
    checkpoint.flush(timeout=3.0)


def look(model: object) -> None:
    run = Run("s3://bucket/run", storage_options={"profile": "me"}, signing_key="sixteen bytes and more")
    assert_type(run.best, Checkpoint | None)
    assert_type(run.find("latest"), Checkpoint)
    assert_type(run.find(3).score, float | None)
    assert_type(run.checkpoints, list[Checkpoint])
    assert_type(run.pull("best"), Path)
    assert_type(run.load(model), Checkpoint)
    assert_type(run.sweep(timedelta(days=2), dry_run=True), list[str])
    assert_type(load_best(model, "s3://bucket/run", cache_dir=Path("cache")), Checkpoint)
    assert_type(load_latest(model, Path("run")).logs["loss"], float | None)
    for found in find_runs("s3://bucket", storage_options=None):
        assert_type(found, FoundRun)
        assert_type(found.run.url, str)


def loop(model: object) -> bool:
    try:
        with Run("run").writer("{epoch}.weights.h5", monitor="loss", keep_last=2, on_error="raise") as writer:
            return writer.save(model, epoch=0, logs={"loss": 0.5})
    except (DrainError, NoCheckpointError) as exc:
        assert_type(str(exc), str)
        raise
    except RemoteCkptError:
        return False
