"""The cache of downloads that several processes share: who waits for whom, and what a trimming leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import pytest
from records import seal

from remote_ckpt.cache import PROMISE, Cache
from remote_ckpt.cache.lock import ObjectLock
from remote_ckpt.location import Location
from remote_ckpt.records import Checkpoint
from remote_ckpt.run import Run
from remote_ckpt.saving.spool import Spool

HOLDER = """
import sys
from remote_ckpt.cache.lock import ObjectLock
from pathlib import Path
lock = ObjectLock(Path(sys.argv[1]))
print(lock.take(), flush=True)
sys.stdin.read()
"""


class Clock:
    """A clock that only sleeping moves; `at_sleep` may do something else meanwhile."""

    def __init__(self) -> None:
        self.now = 0.0
        self.at_sleep = lambda: None

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.at_sleep()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("remote_ckpt.cache.lock.time.sleep", made.sleep)
    monkeypatch.setattr("remote_ckpt.cache.lock.time.monotonic", made)
    return made


def model(seed: int = 1) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])


def saved(seed: int) -> bytes:
    """A weights file of the model of that seed."""
    with tempfile.TemporaryDirectory() as folder:
        model(seed=seed).save_weights(f"{folder}/x.weights.h5")
        return Path(folder, "x.weights.h5").read_bytes()


def make_run(tmp_path: Path, files: int = 2) -> Run:
    """A run with a checkpoint of a model for each epoch, and an empty cache."""
    spool = Spool(Location.parse(tmp_path / "run"), tmp_path / "spool")
    for number in range(files):
        seal(spool, number, float(number), data=saved(number))
    spool.close()
    Run(tmp_path / "run", spool_dir=tmp_path / "spool").recover()
    return open_run(tmp_path)


def open_run(tmp_path: Path, limit: int = 1 << 30) -> Run:
    run = Run(tmp_path / "run", cache_dir=tmp_path / "objects")
    run._cache.limit = limit
    return run


def lock_of(tmp_path: Path, checkpoint: Checkpoint) -> Path:
    (tmp_path / "objects").mkdir(exist_ok=True)
    return tmp_path / "objects" / f"{checkpoint.sha256}.lock"


@contextmanager
def held_elsewhere(lock: Path) -> Iterator[int]:
    """Another process holds the lock and does nothing; gives its process id."""
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process.pid
        process.kill()


def test_who_waits_for_a_download_says_for_whom_and_goes_on_without(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """After the transfer's deadline without a byte; the log names the process and the object, once."""
    run = make_run(tmp_path)
    with held_elsewhere(lock_of(tmp_path, run.best)) as pid:
        path = run.pull("best")
    assert path.stat().st_size == run.best.size
    assert clock.now >= run.transfer.deadline
    waited, went_on = [record.message for record in caplog.records if str(pid) in record.message]
    assert f"downloads {run.best.url}; waiting for it" in waited
    assert "download of our own beside it" in went_on


def test_a_download_that_comes_on_is_waited_for_however_slow_it_is(tmp_path: Path, clock: Clock) -> None:
    """Each byte begins the time anew; the one that waited downloads nothing."""
    run = make_run(tmp_path)
    source = tmp_path / "run" / run.best.key
    lock = ObjectLock(lock_of(tmp_path, run.best))
    partial = tmp_path / "objects" / f"{run.best.sha256}.weights.h5.partial"
    assert lock.take()
    deadline = run.transfer.deadline

    def come_on() -> None:
        with partial.open("ab") as file:
            file.write(b"x")
        if clock.now > 3 * deadline and source.exists():
            partial.unlink()
            source.rename(tmp_path / "objects" / f"{run.best.sha256}.weights.h5")
            lock.release()
            clock.at_sleep = lambda: None

    best, clock.at_sleep = run.best, come_on
    with run._cache.open(best, run.store) as held:
        assert held.path.stat().st_size == best.size
    assert clock.now > 3 * deadline


def test_what_is_in_the_cache_is_had_while_somebody_holds_its_lock(tmp_path: Path, clock: Clock) -> None:
    """Only downloads wait for each other."""
    run = make_run(tmp_path)
    run.pull("best")
    with held_elsewhere(lock_of(tmp_path, run.best)):
        run.pull("best")
    assert clock.now == 0.0


def test_a_file_that_is_about_to_be_loaded_is_not_trimmed(tmp_path: Path) -> None:
    """Though another process fills the cache between the download and the loading."""
    run, made = make_run(tmp_path), model(seed=9)
    load = made.load_weights

    def fill_first(path: str) -> None:
        for other in open_run(tmp_path, limit=1).checkpoints[:1]:
            with open_run(tmp_path, limit=1)._cache.open(other, run.store):
                pass
        load(path)

    made.load_weights = fill_first
    assert run.load(made, "latest").epoch == 1


def test_a_path_that_was_handed_out_stays_for_a_while(tmp_path: Path) -> None:
    """Also when whoever pulled it has ended; then the cache gets back within its limit."""
    make_run(tmp_path, files=3)
    first, second = (open_run(tmp_path, limit=1).pull(epoch) for epoch in (0, 1))
    assert first.exists()
    past = time.time() - 1
    os.utime(first, (past, past))
    open_run(tmp_path, limit=1).pull(2)
    assert (first.exists(), second.exists()) == (False, True)


def test_a_promise_from_the_far_future_is_none(tmp_path: Path) -> None:
    """The clock was set back; the cache stays within its limit all the same."""
    make_run(tmp_path)
    first = open_run(tmp_path, limit=1).pull(0)
    future = time.time() + 2 * PROMISE + 3600
    os.utime(first, (future, future))
    open_run(tmp_path, limit=1).pull(1)
    assert not first.exists()


def test_what_was_loaded_is_trimmed_at_once(tmp_path: Path) -> None:
    """Who evaluates a hundred checkpoints needs no disk for a hundred."""
    make_run(tmp_path)
    for epoch in (0, 1):
        open_run(tmp_path, limit=1).load(model(), epoch)
    assert len(list((tmp_path / "objects").glob("*.h5"))) == 1


def test_no_lock_file_stays_behind(tmp_path: Path) -> None:
    """Not one for each checkpoint that was ever downloaded."""
    make_run(tmp_path).pull("best")
    assert not list((tmp_path / "objects").glob("*.lock"))


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_on_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder removes the file as it lets go; who had opened it before must not believe to hold the next one's."""
    import fcntl

    path, real, removed = tmp_path / "x.lock", fcntl.flock, []

    def flock(fd: int, how: int) -> None:
        if not removed:
            removed.append(True)
            path.unlink()
        real(fd, how)

    monkeypatch.setattr("remote_ckpt.cache.lock.fcntl.flock", flock)
    first, second = ObjectLock(path), ObjectLock(path)
    assert first.take()
    assert not second.take()
    first.release()
    assert second.take()
    second.release()


def test_a_disk_without_locks_costs_a_download_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network filesystems answer ENOLCK or EOPNOTSUPP."""

    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    run = make_run(tmp_path)
    monkeypatch.setattr("fcntl.flock", none)
    assert run.load(model(), "best").id == run.best.id
    assert run.pull("best").exists()
    assert isinstance(run._cache, Cache)
