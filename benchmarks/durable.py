"""How soon is a checkpoint safe in the bucket, on a link as object stores have it?

- **Saved**: from the call that saves until the checkpoint is in the bucket, verified and named by the manifest; against
  what is written by hand, `save_weights`, then `s3fs.put_file`. And for how much of it training stands still.
- **Frozen**: the same while 95 % of the model is frozen, as in fine-tuning.
- **Killed**: an upload is killed half way; another process goes on with it. How much is sent again?

    python benchmarks/durable.py [--rounds N] [--size MIB] [--rate MB/s] [--round-trip MS] [--only saved|frozen|killed]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transfer import MIB, make_file, shaped

from remote_ckpt.testing.servers import Server, start

NAME = "{epoch:03d}.weights.h5"


@contextmanager
def link(rate: float, round_trip: float) -> Iterator[tuple[Server, dict[str, Any]]]:
    """Yield an S3 server and the options that reach it through the shaped link."""
    with start("seaweedfs") as server, shaped(server, rate, round_trip) as endpoint:
        yield server, {**server.storage_options, "endpoint_url": endpoint}


def model(frozen: bool) -> Any:
    """Return a trained model with 300 MB of state; or one of which 95 % does not change any more."""
    import keras
    import numpy as np

    width = 1440
    layers = [keras.layers.Dense(width) for _ in range(36 if frozen else 12)]
    for layer in layers[:-1] if frozen else ():
        layer.trainable = False
    made = keras.Sequential([keras.Input((width,)), *layers])
    made.compile(keras.optimizers.Adam(1e-5) if not frozen else keras.optimizers.SGD(1e-5), "mse")
    x = np.random.default_rng(0).random((8, width)).astype("float32")
    return made, lambda: made.train_on_batch(x, x)


def saved(server: Server, options: dict[str, Any], rounds: int, *, frozen: bool) -> None:
    """Save by hand and by ours in turns, and print what it takes."""
    import s3fs

    from remote_ckpt import Run

    trained, step = model(frozen)
    fs = s3fs.S3FileSystem(**options)
    found: dict[str, list[float]] = {"hand": [], "hand stall": [], "ours": [], "ours stall": []}
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "model.weights.h5"
        run = Run(f"s3://{server.bucket}/durable/{uuid.uuid4().hex}", storage_options=options, spool_dir=name)
        with run.writer(NAME, monitor="loss") as writer:
            for turn in range(rounds + 1):
                step()
                os.sync()
                begun = time.perf_counter()
                trained.save_weights(file)
                fs.put_file(str(file), f"{server.bucket}/durable/{uuid.uuid4().hex}")
                by_hand = time.perf_counter() - begun
                os.sync()
                begun = time.perf_counter()
                writer.save(trained, epoch=turn)
                stall = time.perf_counter() - begun
                writer.flush()
                ours = time.perf_counter() - begun
                if turn:
                    for kind, seconds in zip(found, (by_hand, by_hand, ours, stall), strict=True):
                        found[kind].append(seconds)
                else:  # the first is not the usual one: nothing to write over, nothing to compare with
                    sent_first = writer.stats.bytes_sent
            sent = (writer.stats.bytes_sent - sent_first) / rounds / file.stat().st_size
        size = file.stat().st_size / 1e6
    middle = {kind: statistics.median(times) for kind, times in found.items()}
    print(
        f"{'95 % frozen' if frozen else 'saved'}, {size:.0f} MB: by hand {middle['hand']:.2f} s, standing still; "
        f"remote_ckpt {middle['ours']:.2f} s, standing still {1e3 * middle['ours stall']:.1f} ms: "
        f"{middle['ours'] / middle['hand']:.2f} of the time; {100 * sent:.1f} % of the bytes sent",
        flush=True,
    )


def killed(server: Server, options: dict[str, Any], size: int) -> None:
    """Kill an upload half way and let another process go on."""
    run = f"s3://{server.bucket}/killed/{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory() as spool:
        task = [sys.executable, __file__, "--upload", json.dumps([run, options, spool, size])]
        with subprocess.Popen(task, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            done = 0
            for line in process.stdout:
                done = int(line)
                if done >= size // 2:
                    process.send_signal(signal.SIGKILL)
                    break
        from remote_ckpt.location import Location
        from remote_ckpt.manifest import Committer
        from remote_ckpt.saving.publisher import Publisher
        from remote_ckpt.saving.spool import Spool
        from remote_ckpt.stores import TransferReport, open_store

        location, report = Location.parse(run), TransferReport()
        store = open_store(location, options)
        (entry,) = Spool(location, spool).adopt()
        begun = time.perf_counter()
        Publisher(store, location, Committer(store, location)).publish(entry, report)
        seconds = time.perf_counter() - begun
    print(
        f"killed: {size // MIB} MiB, after {done / MIB:.0f} MiB had arrived; missing {(size - done) / MIB:.0f} MiB, "
        f"sent {report.sent / MIB:.0f} MiB in {seconds:.1f} s, {report.reused / MIB:.0f} MiB were there",
        flush=True,
    )


def upload(run: str, options: dict[str, Any], folder: str, size: int) -> None:
    """Seal a file and publish it, telling of each part that has arrived; it will be killed."""
    from datetime import datetime, timezone

    from remote_ckpt.location import Location
    from remote_ckpt.manifest import Committer
    from remote_ckpt.records import Checkpoint
    from remote_ckpt.records.series_rules import SeriesRules
    from remote_ckpt.saving.publisher import Publisher
    from remote_ckpt.saving.spool import Spool
    from remote_ckpt.stores import TransferReport, open_store
    from remote_ckpt.stores.base import Digests

    location = Location.parse(run)
    store = open_store(location, options)

    def complete(digests: Digests) -> tuple[Checkpoint, SeriesRules]:
        record = Checkpoint(
            id="killed",
            series=NAME,
            key="000.weights.h5",
            epoch=0,
            created=datetime.now(timezone.utc),
            size=digests.size,
            sha256=digests.sha256,
            crc32c=digests.crc32c,
        )
        return record, SeriesRules(monitor="loss", mode="min")

    entry = Spool(location, folder).seal("killed", ".weights.h5", lambda path: make_file(path, size), complete)
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        print(done, flush=True)

    Publisher(store, location, Committer(store, location)).publish(entry, TransferReport(), tell)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the upload that is killed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=8.0, help="MB/s a connection")
    parser.add_argument("--round-trip", type=float, default=20.0, help="ms")
    parser.add_argument("--only", choices=["saved", "frozen", "killed"])
    parser.add_argument("--upload", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.upload:
        upload(*json.loads(chosen.upload))
        return
    with link(chosen.rate * 1e6, chosen.round_trip / 1e3) as (server, options):
        if chosen.only in (None, "killed"):
            killed(server, options, chosen.size * MIB)
        for kind in ("saved", "frozen"):
            if chosen.only in (None, kind):
                saved(server, options, chosen.rounds, frozen=kind == "frozen")


if __name__ == "__main__":
    main()
