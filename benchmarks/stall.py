"""How long does one checkpoint stop training, and how long does its file take to write?

All contenders save the same model in one process, in turns, after one training step each:

- Keras `ModelCheckpoint(save_weights_only=True)` to the local disk,
- Keras `OrbaxCheckpoint(save_on_background=True)`, if orbax-checkpoint is installed,
- a plain memory copy of the same bytes into memory that is already there: the limit of any snapshot that copies,
- ours: `Capturer.capture`.

The stall is the time the training thread is held. What the next training step takes longer is reported too, since
copy-on-write moves work there. The first save is measured in a fresh process per contender. Writing the file is timed
alone: `save_weights` against `Snapshot.write`, same disk, same bytes; over an earlier file, and into a new one.

    python benchmarks/stall.py                    # all models: prints a table, writes benchmarks/results/stall.json
    python benchmarks/stall.py --models dense-12  # some
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import logging
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from workloads import MODELS, Workload

from remote_ckpt.capture import Capturer, Snapshot

HERE = Path(__file__).resolve().parent

Prepared = Callable[[], object]


class ModelCheckpoint:
    """Keras's callback, as a user has it."""

    label = "ModelCheckpoint"

    def __init__(self, workload: Workload, folder: Path) -> None:
        self.folder = folder / "keras"
        self.folder.mkdir()
        self.callback = keras.callbacks.ModelCheckpoint(
            str(self.folder / "{epoch}.weights.h5"), save_weights_only=True, save_freq="epoch"
        )
        self.callback.set_model(workload.model)

    def prepare(self) -> Prepared:
        """Return what is to be timed."""
        return lambda: self.callback.on_epoch_end(0, {})

    def settle(self) -> None:
        """Remove the file, so that the next one is new, as with a template."""
        for file in self.folder.iterdir():
            file.unlink()


class Orbax:
    """Keras's asynchronous callback; by default it saves the optimizer's state too, as the others do."""

    label = "OrbaxCheckpoint"

    def __init__(self, workload: Workload, folder: Path) -> None:
        logging.getLogger("absl").setLevel(logging.ERROR)
        self.callback = keras.callbacks.OrbaxCheckpoint(str(folder / "orbax"), save_on_background=True, monitor="loss")
        self.callback.set_model(workload.model)
        self.epoch = 0

    def prepare(self) -> Prepared:
        """Return what is to be timed."""
        self.epoch += 1
        return lambda: self.callback.on_epoch_end(self.epoch, {"loss": 1.0})

    def settle(self) -> None:
        """Finish what the save began; not timed."""
        self.callback.wait_until_finished()


class MemoryCopy:
    """Copies the bytes of the state, and nothing else, into memory that has been touched before."""

    label = "memory copy"

    def __init__(self, workload: Workload, _: Path) -> None:
        self.workload = workload
        self.target = [np.array(variable.numpy()) for variable in workload.variables()]
        self.source: list[np.ndarray] = []

    def prepare(self) -> Prepared:
        """Return what is to be timed."""
        self.source = [np.asarray(variable.value.value()) for variable in self.workload.variables()]
        return self._copy

    def _copy(self) -> None:
        for target, source in zip(self.target, self.source, strict=True):
            np.copyto(target, source)
        self.source = []  # or the next step would find its buffers shared, and pay for copies of its own

    def settle(self) -> None:
        """It is done when it returns."""


class Ours:
    """References; the file is written after the timed part, as the worker would."""

    label = "remote_ckpt"

    def __init__(self, workload: Workload, folder: Path) -> None:
        self.capturer = Capturer(workload.model)
        self.path = folder / "ours.weights.h5"
        self.snapshot: Snapshot | None = None

    def prepare(self) -> Prepared:
        """Return what is to be timed."""
        return self._capture

    def _capture(self) -> None:
        self.snapshot = self.capturer.capture()

    def settle(self) -> None:
        """Write the file; not timed."""
        assert self.snapshot is not None
        self.snapshot.write(self.path)
        self.path.unlink()


CONTENDERS: dict[str, Any] = {"keras": ModelCheckpoint, "orbax": Orbax, "copy": MemoryCopy, "ours": Ours}


def contenders() -> list[str]:
    return [name for name in CONTENDERS if name != "orbax" or importlib.util.find_spec("orbax")]


def timed(call: Prepared) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def calm_down() -> None:
    """Let each contender start without the garbage and the unwritten pages of the one before."""
    gc.collect()
    os.sync()


def measure_stalls(workload: Workload, folder: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Time each contender's save, and the training step after it, in turns; and the step after no save."""
    running = {name: CONTENDERS[name](workload, folder) for name in contenders()}
    found: dict[str, dict[str, list[float]]] = {name: {"stall": [], "next_step": []} for name in [*running, "none"]}
    for turn in range(rounds + 1):
        for name in [*running, "none"]:
            calm_down()
            workload.step()
            stall = timed(running[name].prepare()) if name in running else 0.0
            next_step = timed(workload.step)
            if name in running:
                running[name].settle()
            if turn:  # the first turn is not the usual one; first saves are measured on their own
                found[name]["stall"].append(stall)
                found[name]["next_step"].append(next_step)
    return found


def measure_files(workload: Workload, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Time `save_weights` and `Snapshot.write` of the same state in turns, and compare the files.

    `write` goes over the file before, as the spool has it once a checkpoint is in the bucket; `write_new` makes a new
    file each time, as for a local run, whose objects are the files themselves.
    """
    capturer = Capturer(workload.model)
    theirs, over, new = folder / "a.weights.h5", folder / "b.weights.h5", folder / "c.weights.h5"
    found: dict[str, list[float]] = {"save_weights": [], "write": [], "write_new": []}
    for turn in range(rounds + 1):
        workload.step()
        snapshots = [capturer.capture(), capturer.capture()]
        times = {}
        calm_down()
        times["save_weights"] = timed(lambda: workload.model.save_weights(theirs))
        for name, path, snapshot in (("write", over, snapshots[0]), ("write_new", new, snapshots[1])):
            calm_down()
            times[name] = timed(partial(snapshot.write, path))
            assert path.read_bytes() == theirs.read_bytes()
        theirs.unlink()
        new.unlink()
        for name, time_ in times.items() if turn else ():  # the first turn learns the template
            found[name].append(time_)
    return found


def measure_first(model: str, contender: str) -> float:
    """Time the first save of a fresh process, in that process."""
    command = [sys.executable, __file__, "--first", model, contender]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    return float(result.stdout.split()[-1])


def first(model: str, contender: str) -> None:
    workload = Workload(model)
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        running = CONTENDERS[contender](workload, Path(folder))
        stall = timed(running.prepare())
        running.settle()
    print(stall)


def scratch() -> str | None:
    return os.environ.get("REMOTE_CKPT_BENCH_DIR")


def measure(model: str, rounds: int) -> dict[str, Any]:
    workload = Workload(model)
    arrays = [np.asarray(variable.value.value()) for variable in workload.variables()]
    result: dict[str, Any] = {
        "model": MODELS[model][0],
        "variables": len(arrays),
        "megabytes": round(sum(array.nbytes for array in arrays) / 1e6, 1),
    }
    del arrays
    folder = Path(tempfile.mkdtemp(dir=scratch()))
    try:
        stalls = measure_stalls(workload, folder, rounds)
        files = measure_files(workload, folder, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    base = statistics.median(stalls.pop("none")["next_step"])
    result["step_ms"] = round(base, 2)
    result["stall"] = {
        CONTENDERS[name].label: {
            "median_ms": round(statistics.median(times["stall"]), 3),
            "worst_ms": round(max(times["stall"]), 3),
            "next_step_longer_ms": round(statistics.median(times["next_step"]) - base, 2),
            "first_ms": None if name == "copy" else round(measure_first(model, name), 2),
        }
        for name, times in stalls.items()
    }
    result["file"] = {name: spread(times) for name, times in files.items()}
    return result | {"ratios": ratios(result)}


def spread(times: list[float]) -> dict[str, float]:
    return {"least": round(min(times), 1), "median": round(statistics.median(times), 1), "most": round(max(times), 1)}


def ratios(result: dict[str, Any]) -> dict[str, float]:
    stall, file = result["stall"], result["file"]
    ours, theirs = stall["remote_ckpt"], stall["ModelCheckpoint"]
    return {
        "ModelCheckpoint ÷ ours, stall": round(theirs["median_ms"] / ours["median_ms"], 1),
        "memory copy ÷ ours, stall": round(stall["memory copy"]["median_ms"] / ours["median_ms"], 2),
        "ModelCheckpoint ÷ ours, first stall": round(theirs["first_ms"] / ours["first_ms"], 2),
        "save_weights ÷ ours, file": round(file["save_weights"]["median"] / file["write"]["median"], 1),
        "save_weights ÷ ours, new file": round(file["save_weights"]["median"] / file["write_new"]["median"], 1),
    }


def show(result: dict[str, Any]) -> None:
    print(
        f"\n{result['model']}: {result['variables']} variables, {result['megabytes']} MB, step {result['step_ms']} ms"
    )
    print(f"  {'':18}{'median':>10}{'worst':>10}{'next step':>11}{'first':>10}   (ms)")
    for label, row in result["stall"].items():
        first_ms = "–" if row["first_ms"] is None else f"{row['first_ms']:.1f}"
        print(
            f"  {label:18}{row['median_ms']:10.2f}{row['worst_ms']:10.2f}"
            f"{row['next_step_longer_ms']:+11.2f}{first_ms:>10}"
        )
    for name, times in result["file"].items():
        print(f"  file, {name:12} {times['median']:.1f} ms ({times['least']:.1f} to {times['most']:.1f})")
    print("  " + " · ".join(f"{name} {ratio}" for name, ratio in result["ratios"].items()))


def machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=9, help="saves per contender; medians are reported")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "stall.json")
    parser.add_argument("--first", nargs=2, metavar=("MODEL", "CONTENDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.first:
        first(*arguments.first)
        return
    results = []
    for model in arguments.models:
        results.append(measure(model, arguments.rounds))
        show(results[-1])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine(), "rounds": arguments.rounds, "results": results}
    arguments.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
