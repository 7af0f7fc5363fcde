"""Readers in a hurry while writers replace and prune what they read: whole, of one piece, or "nothing yet".

`REMOTE_CKPT_LONG` (a whole number) multiplies the saves.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from models import model

from remote_ckpt import load_best
from remote_ckpt.errors import NoCheckpointError
from remote_ckpt.run import Run

PROGRAMS = Path(__file__).parents[1] / "programs.py"
SAVES = 150 * int(os.environ.get("REMOTE_CKPT_LONG", "1"))
WRITERS = 2


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights files of which each holds one number only, the one in its name."""
    folder, made = tmp_path_factory.mktemp("files"), model()
    for number in range(SAVES):
        made.set_weights([np.full_like(weight, number) for weight in made.get_weights()])
        made.save_weights(folder / f"{number}.weights.h5")
    return folder


class Readers:
    """Readers that go on until they are told to stop; what they saw is counted, and what they must not see is kept."""

    def __init__(self, url, options, folder):
        self.url, self.options, self.folder = url, options, folder
        self.counts, self.wrong = Counter(), []
        self.ended, self.begun = threading.Event(), threading.Event()
        self.runs = {name: self.open(name) for name in ("best", "latest", "loaded")}

    def open(self, name):
        """Each reader has a session and a cache of its own."""
        return Run(self.url, cache_dir=self.folder / f"cache-{name}", **self.options)

    def again_and_again(self, name, read):
        last = float("inf")
        while not self.ended.is_set():
            committed = self.begun.is_set()
            try:
                number = read()
            except NoCheckpointError as exc:
                self.counts["nothing yet"] += 1
                if committed:
                    self.wrong.append(f"{name} found nothing, after something was found: {exc}")
            except Exception as exc:
                self.wrong.append(f"{name}: {type(exc).__name__}: {exc}")
            else:
                self.counts[name] += 1
                self.begun.set()
                if name != "latest" and number > last:
                    self.wrong.append(f"{name} went from {last} to {number}")
                last = number

    def pull(self, which):
        """Download without a cache that would spare it; every dataset holds the file's number."""
        path = self.runs[which].pull(which)
        found = set()

        def collect(name, item):
            if isinstance(item, h5py.Dataset) and not name.startswith("optimizer"):
                found.update(np.unique(item))

        with h5py.File(path) as file:
            file.visititems(collect)
        path.unlink()
        return one_of(found)

    def load(self, made):
        record = self.runs["loaded"].load(made)
        number = one_of({value for weight in made.get_weights() for value in np.unique(weight)})
        assert number == record.score, f"the weights hold {number}, and the record says {record.score}"
        return number


def one_of(numbers):
    (number,) = numbers
    return number


@pytest.mark.slow
@pytest.mark.parametrize("place", ["local", "seaweedfs", "fake_gcs"])
def test_readers_see_whole_checkpoints_or_none_yet(place, files, get_server, prefix, tmp_path, capsys):
    """Two writers keep one best and one latest; what a reader chose may be pruned before it has it."""
    server = None if place == "local" else get_server(place)
    url = server.url(prefix) if server else str(tmp_path / "run")
    readers = Readers(url, {"storage_options": server.storage_options} if server else {}, tmp_path)
    made = model(seed=5)
    jobs = {"best": lambda: readers.pull("best"), "latest": lambda: readers.pull("latest")}
    jobs["loaded"] = lambda: readers.load(made)
    threads = [threading.Thread(target=readers.again_and_again, args=job) for job in jobs.items()]
    for thread in threads:
        thread.start()
    environment = {**os.environ, **(server.environment if server else {})}
    crew = [
        subprocess.Popen(
            [sys.executable, PROGRAMS, "publish_files", url, files, str(SAVES - 1 - number), str(WRITERS)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(WRITERS)
    ]
    troubles = [process.communicate(timeout=280)[1] for process in crew if process]
    readers.ended.set()
    for thread in threads:
        thread.join()
    with capsys.disabled():
        print(f"\n{place}: {SAVES} saves, {dict(readers.counts)}, {len(readers.wrong)} wrong")
    assert [trouble for process, trouble in zip(crew, troubles, strict=True) if process.returncode] == []
    assert readers.wrong == []
    assert all(readers.counts[name] for name in jobs)
    assert load_best(made, url, **readers.options).score == 0.0
