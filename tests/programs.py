"""Programs that tests run in processes of their own: `python programs.py NAME ARGUMENTS…`."""

from __future__ import annotations

import os
import random
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from records import seal, terms

from remote_ckpt.location import Location
from remote_ckpt.manifest import Committer
from remote_ckpt.run import Run
from remote_ckpt.saving.publisher import Publisher
from remote_ckpt.saving.spool import Spool
from remote_ckpt.stores import Expect, TransferReport, open_store


def count(url: str, times: str) -> None:
    """Add one to a number in the store, `times` times, by compare-and-swap."""
    from remote_ckpt.errors import ObjectNotFoundError, PreconditionFailedError

    store = open_store(Location.parse(url))
    done = 0
    while done < int(times):
        try:
            data, version = store.read("counter", limit=100)
        except ObjectNotFoundError:
            data, version = b"0", Expect.ABSENT
        try:
            store.write("counter", b"%d" % (int(data) + 1), expect=version)
            done += 1
        except PreconditionFailedError:
            time.sleep(random.uniform(0, 0.05))


def save_many(url: str, name: str, times: str) -> None:
    """Publish `times` checkpoints with random scores; print each one's id and score."""
    location = Location.parse(url)
    store = open_store(location)
    spool = Spool(location)
    publisher = Publisher(store, location, Committer(store, location))
    chance = random.Random(name)
    for number in range(int(times)):
        score = chance.choice([chance.random(), chance.random(), float("nan"), float("inf")])
        entry = seal(spool, number, score, rules=terms(keep_best=3, keep_last=3), id=f"{name}{number}")
        publisher.publish(entry, TransferReport())
        print(f"{name}{number} {score!r}", flush=True)
    spool.close()


def publish_files(url: str, folder: str, first: str, step: str) -> None:
    """Publish the files `N.weights.h5` of a folder, from N = `first` down, N being the score; keep one best."""
    location = Location.parse(url)
    store = open_store(location)
    spool = Spool(location)
    publisher = Publisher(store, location, Committer(store, location))
    for number in range(int(first), -1, -int(step)):
        data = Path(folder, f"{number}.weights.h5").read_bytes()
        now = datetime.now(timezone.utc)
        rules = terms(keep_best=1, keep_last=1)
        entry = seal(spool, number, float(number), data=data, rules=rules, id=f"file{number}", created=now)
        publisher.publish(entry, TransferReport())
    spool.close()


def seal_and_hang(url: str, size: str) -> None:
    """Seal a checkpoint, begin to upload it, and say when the upload is under way."""
    location = Location.parse(url)
    entry = seal(Spool(location), 1, 0.5, data=os.urandom(int(size)))
    store = open_store(location)
    sent = 0

    def progress(count: int) -> None:
        nonlocal sent
        sent += count
        print(f"sent {sent}", flush=True)
        time.sleep(0.05)

    print(f"sealed {entry.record.sha256}", flush=True)
    Publisher(store, location, Committer(store, location)).publish(entry, TransferReport(), progress)
    print("published", flush=True)


def pull(url: str, options: str, cache: str, transfer: str) -> None:
    """Pull the best, saying after each step how many bytes have come."""
    import json

    from remote_ckpt.stores import Transfer

    run = Run(url, storage_options=json.loads(options), cache_dir=cache, transfer=Transfer(**json.loads(transfer)))
    came = 0

    def progress(count: int) -> None:
        nonlocal came
        came += count
        print(f"came {came}", flush=True)

    print(f"pulled {run.pull(progress=progress)}", flush=True)


def train_and_end(url: str, how: str) -> None:
    """Train with the callback and end the interpreter without waiting for uploads."""
    import keras
    from models import Scores, fit, model

    from remote_ckpt import RemoteModelCheckpoint

    class End(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                if how == "exception":
                    raise ZeroDivisionError("the user's own bug")
                if how == "ctrl-c":
                    raise KeyboardInterrupt
                sys.exit(3)

    checkpoint = RemoteModelCheckpoint(f"{url}/w-{{epoch:02d}}.weights.h5", monitor="val_score", mode="max")
    fit(model(), [Scores(0.1, 0.2, 0.3), checkpoint, End()], epochs=3)


def plain_load(bucket: str, key: str, folder: str) -> None:
    """Restore with boto3 and Keras alone; print the digest of the weights."""
    import hashlib

    import boto3
    from models import model

    path = Path(folder) / "got.weights.h5"
    boto3.client("s3").download_file(bucket, key, str(path))
    made = model(seed=9)
    made.load_weights(path)
    assert not [name for name in sys.modules if name == "remote_ckpt.callback"]
    print(hashlib.sha256(b"".join(w.tobytes() for w in made.get_weights())).hexdigest())


def look(url: str, seconds: str) -> None:
    """Read the best again and again; it must never get worse, and always be there."""
    import contextlib

    from remote_ckpt.errors import NoCheckpointError

    run, best, looks = Run(url), float("inf"), 0
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until:
        found = run.best
        if found is not None and found.score == found.score:
            assert found.score <= best, (found.score, best)
            best = found.score
        with contextlib.suppress(NoCheckpointError):
            run.pull("best")
            looks += 1
    print(f"looked {looks}", flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
