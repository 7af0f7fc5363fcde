"""Lives to be killed: `python kill_lives.py train|restore`; orders are lines of JSON, answers lines of text.

`train` is a fork server. It has imported TensorFlow and Keras, which takes seconds, but run no operation: until the
first one TensorFlow has no threads, and a child forked then trains as if it had been started afresh. Each order forks
one child, which trains until it is killed, and tells each stage as it enters (`+`) and leaves (`-`) it.
`restore` is the other machine: it has no spool and an empty cache, and loads what is in the bucket.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

LARGE = 8 << 20  # from here on uploads go in parts


class Marks:
    """Tells the parent what this process does, and kills it at the mark that the order names."""

    def __init__(self, out: int, die: list[Any] | None):
        self.out, self.die, self.counts = out, die, Counter()

    def say(self, *words: object) -> None:
        """One write: lines of several threads never mix, and what was said before a kill is in the pipe."""
        os.write(self.out, (" ".join(map(str, words)) + "\n").encode())

    def at(self, edge: str, stage: str) -> None:
        self.say(edge, threading.get_ident(), stage)
        self.counts[edge, stage] += 1
        if self.die == [edge, stage, self.counts[edge, stage]]:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str, stage: Any) -> None:
        real = getattr(owner, name)

        @functools.wraps(real)
        def marked(*args: Any, **options: Any) -> Any:
            label = stage(*args, **options) if callable(stage) else stage
            self.at("+", label)
            try:
                return real(*args, **options)
            finally:
                self.at("-", label)

        setattr(owner, name, marked)


def mark_stages(marks: Marks) -> None:
    """Every step of a checkpoint's way, by the public names of the package and of the system."""
    from remote_ckpt.capture import Capturer
    from remote_ckpt.manifest import Committer
    from remote_ckpt.saving.publisher import Publisher
    from remote_ckpt.saving.spool import FileJournal, Spool, SpoolEntry
    from remote_ckpt.stores.retrying import Retrying
    from remote_ckpt.weights_file import TemplateWriter

    def upload(_store: Any, _key: str, _source: Path, *, digests: Any, **_: Any) -> str:
        return "upload-parts" if digests.size > LARGE else "upload"

    marks.around(Capturer, "capture", "capture")
    marks.around(Spool, "adopt", "adopt")
    marks.around(Spool, "seal", "seal")
    marks.around(TemplateWriter, "write", "write")
    marks.around(os, "fsync", "fsync")
    marks.around(Path, "rename", "rename")
    marks.around(FileJournal, "save", "journal")
    marks.around(Publisher, "publish", "publish")
    marks.around(Retrying, "probe", "probe")
    marks.around(Retrying, "stat", "stat")
    marks.around(Retrying, "upload", upload)
    marks.around(Committer, "commit", "commit")
    marks.around(Retrying, "read", "read")
    marks.around(Retrying, "write", "manifest")
    marks.around(Retrying, "copy", "alias")
    marks.around(Retrying, "delete", "prune")
    marks.around(SpoolEntry, "drop", "drop")


def make_model(units: int) -> Any:
    import keras

    made = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(units, activation="relu"), keras.layers.Dense(1, activation="sigmoid")]
    )
    made.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", run_eagerly=True)
    return made


def fingerprint(model: Any) -> dict[str, float]:
    """What a restored model must reproduce: 48 bits of its weights' digest, and a prediction."""
    import numpy as np

    digest = hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest()
    predicted = model(np.full((1, 4), 0.5, "float32"))
    return {"weights": float(int(digest[:12], 16)), "prediction": float(np.asarray(predicted)[0, 0])}


def train(order: dict[str, Any], marks: Marks) -> None:
    """Train until the end of the order or of this process, whichever comes first; then wait to be killed."""
    import keras
    import numpy as np

    from remote_ckpt import RemoteModelCheckpoint
    from remote_ckpt.stores import Transfer

    os.environ["XDG_CACHE_HOME"] = order["cache"]  # what a probe has found is kept there
    mark_stages(marks)
    chance = random.Random(order["seed"])

    class Fingerprints(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            score = chance.random() + (order["rising"] * epoch)
            logs.update(fingerprint(self.model), val_score=score)

    class Checkpoint(RemoteModelCheckpoint):
        def on_train_begin(self, logs: Any = None) -> None:
            super().on_train_begin(logs)
            marks.say("begin")

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            super().on_epoch_end(epoch, logs)
            marks.say("saved", repr(logs["val_score"]))
            if epoch % order["flush_every"] == order["flush_every"] - 1:
                self.flush(60)
                marks.say("flushed")

        def _published(self, record: Any, is_best: bool) -> None:
            super()._published(record, is_best)
            marks.say("published", repr(record.score))

    callback = Checkpoint(
        order["filepath"],
        monitor="val_score",
        mode="max",
        storage_options=order["options"],
        spool_dir=order["spool"],
        transfer=Transfer(**order["transfer"]),
        **order["arguments"],
    )
    keras.utils.set_random_seed(order["seed"])
    model = make_model(order["units"])
    x = np.random.default_rng(order["seed"]).normal(size=(16, 4)).astype("float32")
    y = (x.sum(axis=1) > 0).astype("float32")
    model.fit(x, y, epochs=10**6, batch_size=8, verbose=0, callbacks=[Fingerprints(), callback])


def serve_lives() -> None:
    """Fork one child for each order; tell its end before the next order is read."""
    for package in ("keras", "numpy", "s3fs", "gcsfs", "aiobotocore.session", "remote_ckpt.callback"):
        importlib.import_module(package)  # once, for all children
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.write(out, b"ready\n")
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            marks = Marks(out, order["die"])
            marks.say("pid", os.getpid())
            try:
                train(order, marks)
            except BaseException as error:
                marks.say("failed", repr(error).replace("\n", " "))
                raise
            os._exit(0)
        _, status = os.waitpid(child, 0)
        os.write(out, f"dead {os.waitstatus_to_exitcode(status)}\n".encode())


def serve_restores() -> None:
    """Load what each order names into a fresh model, from an empty cache; answer with what is recorded and found."""
    from remote_ckpt import load_best, load_latest
    from remote_ckpt.errors import NoCheckpointError

    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    models: dict[int, Any] = {}
    os.write(out, b"ready\n")
    for line in sys.stdin:
        order = json.loads(line)
        model = models.setdefault(order["units"], make_model(order["units"]))
        cache = tempfile.mkdtemp()
        load = load_best if order["which"] == "best" else load_latest
        try:
            found = load(model, order["url"], storage_options=order["options"], cache_dir=cache, spool_dir=cache)
            answer = {"recorded": found.logs, "found": fingerprint(model)}
        except NoCheckpointError:
            answer = {"recorded": None}
        except Exception as error:
            answer = {"error": repr(error)}
        shutil.rmtree(cache)
        os.write(out, (json.dumps(answer) + "\n").encode())


if __name__ == "__main__":
    {"train": serve_lives, "restore": serve_restores}[sys.argv[1]]()
