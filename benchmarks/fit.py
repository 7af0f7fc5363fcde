"""What does a checkpoint at the end of every epoch add to a whole `fit`, in time and in memory?

The same training, each time in a process of its own, contenders in turns: without checkpoints; with Keras's
`ModelCheckpoint`; with `OrbaxCheckpoint` in the background, if it is installed; with ours, to the local disk and to a
local S3; and with what is written by hand, `ModelCheckpoint` and then `s3fs.put_file`. Times include waiting at the end
of training until everything is where it should be. The S3 server works on the same cores.

    python benchmarks/fit.py [--model dense-12] [--epochs N] [--steps N] [--rounds N] [--only "none,keras,ours"]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NAMES = {
    "none": "without checkpoints",
    "keras": "Keras `ModelCheckpoint`",
    "orbax": "Keras `OrbaxCheckpoint`, in the background",
    "ours": "**remote_ckpt**, to the local disk",
    "by hand": "`ModelCheckpoint`, then `s3fs.put_file`",
    "ours s3": "**remote_ckpt**, to S3",
}


def callbacks(contender: str, folder: Path, options: dict[str, Any]) -> list[Any]:
    import keras

    from remote_ckpt import RemoteModelCheckpoint

    name = "{epoch:03d}.weights.h5"
    if contender == "keras":
        return [keras.callbacks.ModelCheckpoint(str(folder / name), save_weights_only=True)]
    if contender == "orbax":
        return [keras.callbacks.OrbaxCheckpoint(str(folder / "orbax"), save_on_background=True, monitor="loss")]
    if contender == "ours":
        return [RemoteModelCheckpoint(str(folder / name), monitor="loss", mode="min")]
    if contender == "ours s3":
        url = f"s3://{options.pop('bucket')}/fit/{uuid.uuid4().hex}/{name}"
        return [RemoteModelCheckpoint(url, monitor="loss", mode="min", storage_options=options, spool_dir=folder)]
    if contender == "by hand":
        return [keras.callbacks.ModelCheckpoint(str(folder / name), save_weights_only=True), by_hand(folder, options)]
    return []


def by_hand(folder: Path, options: dict[str, Any]) -> Any:
    import keras
    import s3fs

    bucket = options.pop("bucket")
    fs = s3fs.S3FileSystem(**options)

    class Upload(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            file = folder / f"{epoch + 1:03d}.weights.h5"
            fs.put_file(str(file), f"{bucket}/fit/{uuid.uuid4().hex}/{file.name}")

    return Upload()


def fit_once(model: str, contender: str, epochs: int, steps: int, options: dict[str, Any]) -> dict[str, float]:
    """Train in this process; a first epoch without checkpoints traces the graph and does not count."""
    from workloads import Workload

    workload = Workload(model)
    x, y = (array.repeat(steps, axis=0) for array in (workload.x, workload.y))
    batch = len(workload.x)
    with tempfile.TemporaryDirectory(dir=os.environ.get("REMOTE_CKPT_BENCH_DIR")) as folder:
        chosen = callbacks(contender, Path(folder), options)
        workload.model.fit(x, y, batch_size=batch, epochs=1, verbose=0)
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
        start = time.perf_counter()
        workload.model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0, callbacks=chosen)
        return {"seconds": time.perf_counter() - start, "peak": peak()}


def peak() -> float:
    """Return the most memory this process has had, in MB."""
    status = Path("/proc/self/status").read_text()
    return float(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024 / 1e6


def in_a_process(*task: Any) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", json.dumps(task)]
    os.sync()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=900)
    outcome: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def measure(model: str, names: list[str], epochs: int, steps: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Let the contenders take turns; return what each of their runs took."""
    from remote_ckpt.testing.servers import start

    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with start("seaweedfs") as server:
        options = {**server.storage_options, "endpoint_url": server.endpoint, "bucket": server.bucket}
        for turn in range(rounds):
            for name in (*names[turn % len(names) :], *names[: turn % len(names)]):
                found[name].append(in_a_process(model, name, epochs, steps, options))
    return found


def show(found: dict[str, list[dict[str, float]]], epochs: int) -> None:
    """Print medians over the rounds against the median without checkpoints, and how far the rounds lie apart."""
    base = {what: statistics.median(run[what] for run in found["none"]) for what in ("seconds", "peak")}
    print("| | a whole `fit`, s | added to an epoch, ms | least to most | peak memory above training alone, MB |")
    print("| --- | --- | --- | --- | --- |")
    for name, runs in found.items():
        whole, most = (statistics.median(run[what] for run in runs) for what in ("seconds", "peak"))
        added = sorted(1e3 * (run["seconds"] - base["seconds"]) / epochs for run in runs)
        print(
            f"| {NAMES[name]} | {whole:.2f} | {statistics.median(added):+.0f} | {added[0]:+.0f} to {added[-1]:+.0f} "
            f"| {most - base['peak']:+.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dense-12", help="dense-12, dense-200, resnet50 or transformer")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=24, help="batches in an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(NAMES), help="contenders, by commas; `none` must be among them")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(fit_once(*json.loads(chosen.one))), flush=True)
        return
    names = [name for name in chosen.only.split(",") if name != "orbax" or importlib.util.find_spec("orbax")]
    found = measure(chosen.model, names, chosen.epochs, chosen.steps, chosen.rounds)
    print(f"{os.cpu_count()} cores; {chosen.model}, {chosen.epochs} epochs of {chosen.steps} batches")
    show(found, chosen.epochs)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / f"fit-{chosen.model}.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
