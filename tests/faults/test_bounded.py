"""What saving may take: memory, local disk, time at exit. And a local disk or a clock that behaves badly meanwhile."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import subprocess
import threading
import time
import weakref
from datetime import datetime, timedelta

import keras
import pytest
from models import Scores, fit, model
from records import seal
from waiting import HANG, until

from remote_ckpt import RemoteModelCheckpoint, Run
from remote_ckpt.capture import Capturer
from remote_ckpt.errors import DrainError, SaveFailedError, SpoolFullError, StoreFullError
from remote_ckpt.location import Location
from remote_ckpt.manifest import Committer
from remote_ckpt.retry import RetryPolicy
from remote_ckpt.saving import exit_drain
from remote_ckpt.saving.publisher import Publisher
from remote_ckpt.saving.spool import Spool
from remote_ckpt.saving.writer import SeriesOptions, Writer
from remote_ckpt.stores import TransferReport, open_store
from remote_ckpt.stores.retrying import Retrying
from remote_ckpt.testing.audit import Auditor
from remote_ckpt.testing.faulty import UNAVAILABLE, FaultyStore, Hang, nothing_wrong
from remote_ckpt.testing.memory import MemoryStore

NAMED = "w-{epoch:02d}.weights.h5"
PLACE = Location.parse("memory-store://run").with_template(NAMED)
QUICK = RetryPolicy(deadline=0.05, first_wait=0.01, longest_wait=0.02)


@pytest.fixture
def network():
    """A store whose network is gone until the test sets `network.plan`."""
    return FaultyStore(MemoryStore(), plan=lambda call: UNAVAILABLE)


def writer(network, tmp_path, *, limit=None, opened=True, **options):
    made = Writer(
        PLACE,
        Retrying(network, QUICK),
        SeriesOptions(monitor="score", mode="max", **options),
        spool=Spool(PLACE, tmp_path / "spool", limit),
    )
    if opened:
        plan, network.plan = network.plan, nothing_wrong
        made.open()
        network.plan = plan
    return made


@pytest.fixture
def snapshots(monkeypatch):
    """Weak references to all snapshots ever taken."""
    taken = []
    real = Capturer.capture

    def capture(self):
        snapshot = real(self)
        taken.append(weakref.ref(snapshot))
        return snapshot

    monkeypatch.setattr(Capturer, "capture", capture)
    return taken


def alive(snapshots):
    gc.collect()
    return sum(1 for snapshot in snapshots if snapshot() is not None)


@pytest.fixture
def slow_disk(monkeypatch):
    """Sealing waits while it is closed."""
    gate, real = threading.Event(), Spool.seal

    def waiting_seal(self, *args, **options):
        assert gate.wait(HANG)
        return real(self, *args, **options)

    monkeypatch.setattr(Spool, "seal", waiting_seal)
    yield gate
    gate.set()


def test_at_most_one_snapshot_waits_while_another_is_written(network, tmp_path, snapshots, slow_disk):
    """With `save_best_only` a third takes the waiting one's place: memory holds two, however long the disk takes."""
    network.plan = nothing_wrong
    saving, made = writer(network, tmp_path, save_best_only=True), model()
    for epoch in range(12):
        saving.save(made, epoch=epoch, logs={"score": float(epoch)})
        assert alive(snapshots) <= 2
    slow_disk.set()
    saving.close()
    assert saving.stats.superseded >= 9
    assert Committer(network, PLACE).load().of(NAMED).find("best").epoch == 11


def test_training_waits_for_the_disk_before_a_third_snapshot_is_taken(network, tmp_path, snapshots, slow_disk):
    """When every checkpoint is wanted, none is given up, and memory is bounded all the same."""
    network.plan = nothing_wrong
    saving, made = writer(network, tmp_path), model()
    saved = []

    def save_all():
        for epoch in range(5):
            saving.save(made, epoch=epoch, logs={"score": 0.5})
            saved.append(epoch)

    training = threading.Thread(target=save_all)
    training.start()
    until(lambda: len(saved) == 2)
    training.join(0.5)
    assert training.is_alive()
    assert len(saved) == 2
    assert alive(snapshots) == 2
    slow_disk.set()
    training.join(HANG)
    saving.close()
    assert len(Committer(network, PLACE).load().of(NAMED).history) == 5


def test_without_a_network_neither_memory_nor_disk_fills_up(network, tmp_path, snapshots, caplog):
    """Checkpoints wait on the disk, up to the limit; the best and the newest are kept, and what is given up is told."""
    made = model(units=350_000)  # 8.4 MB of weights
    made.compile("sgd", "mse")
    size = 8_500_000
    saving = writer(network, tmp_path, limit=4 * size)
    scores = [0.1, 0.9, *([0.2, 0.3] * 9)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used = []
    for epoch, score in enumerate(scores):
        saving.save(made, epoch=epoch, logs={"score": score})
        until(lambda: saving._pipeline._sealing is None and not saving._pipeline._jobs)
        used.append(saving._spool.used())
    assert alive(snapshots) == 0
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < 8 * size, f"{grown >> 20} MiB for 20 checkpoints of 8 MiB"
    assert max(used) <= 4 * size
    assert saving.stats.dropped >= 15
    assert "was dropped before it was uploaded" in caplog.text
    network.plan = nothing_wrong
    with pytest.raises(SaveFailedError, match="spool_limit"):
        saving.close()
    series = Committer(network, PLACE).load().of(NAMED)
    assert series.find("best").score == 0.9
    assert series.find("latest").epoch == len(scores) - 1


def test_half_of_the_free_disk_is_left_alone(tmp_path, monkeypatch):
    """Whatever the limit says; what waits counts as free, so that the bound does not shrink as it fills."""
    spool = Spool(PLACE, tmp_path / "spool", limit=1 << 40)
    disk = shutil.disk_usage(tmp_path)
    free = 1_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk._replace(free=free))
    assert spool.room() == 500_000
    seal(spool, 0, data=b"x" * 400_000)
    free -= spool.used()
    assert 95_000 <= spool.room() <= 100_000
    free = 0
    assert spool.room() < 0
    spool.close()


def test_an_exit_waits_no_longer_than_it_may_for_all_writers_together(tmp_path, monkeypatch, capsys):
    """Each request hangs; the time is shared, and each writer says what is left and how to recover it."""
    monkeypatch.setenv("REMOTE_CKPT_EXIT_TIMEOUT", "1.5")
    writers = []
    for name in "abc":
        saving = writer(FaultyStore(MemoryStore()), tmp_path / name)
        saving._store._store.plan = lambda call: Hang(HANG)
        saving.save(model(), epoch=0, logs={"score": 0.5})
        until(lambda saving=saving: saving._spool.waiting())
        writers.append(saving)
    begun = time.monotonic()
    exit_drain._drain_all()
    assert time.monotonic() - begun < HANG / 2
    told = capsys.readouterr().err
    assert told.count("finishing uploads") == 3
    assert told.count("remote-ckpt recover") == 3


# The local disk


class Disk:
    """A real filesystem in memory, of a size that can be changed."""

    def __init__(self, folder):
        self.folder = folder

    def remount(self, options):
        subprocess.run(["mount", "-o", f"remount,{options}", self.folder], check=True, capture_output=True)

    def cover(self):
        """Let a read-only filesystem stand in its place."""
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", self.folder], check=True, capture_output=True)

    def uncover(self):
        subprocess.run(["umount", "--lazy", self.folder], check=True)


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"cannot mount a small filesystem: {done.stderr!r}")
        pytest.skip("mounting a small filesystem needs root")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_spool_may_run_full_at_any_byte(disk, tmp_path, monkeypatch):
    """At each page of a checkpoint, of its seal, of the folder: it is sealed whole, or not at all, and is told."""
    monkeypatch.setattr(Spool, "room", lambda self: 1 << 40)
    location = Location.parse(str(tmp_path / "run"))
    store = open_store(location)
    publisher = Publisher(store, location, Committer(store, location))
    outcomes = []
    for pages in range(1, 16):
        disk.remount(f"size={pages * 4096}")
        spool = Spool(location, disk.folder)
        try:
            entry = seal(spool, pages, 1 / pages, data=os.urandom(30_000))
        except SpoolFullError:
            assert not list(disk.folder.rglob("*.h5"))
            assert not [path for path in disk.folder.rglob("*.json") if path.name != "run.json"]
            outcomes.append("full")
        else:
            publisher.publish(entry, TransferReport())
            outcomes.append("sealed")
        spool.close()
        assert not list(disk.folder.iterdir())
    assert outcomes[0] == "full"
    assert outcomes[-1] == "sealed"
    assert "full" not in outcomes[outcomes.index("sealed") :]
    run = Run(str(tmp_path / "run"))
    assert len(run.checkpoints) == outcomes.count("sealed")
    assert all(verdict.problem is None for verdict in run.verify())


def test_a_local_run_may_run_full_at_any_byte(disk, tmp_path):
    """Its manifest names what is whole; the checkpoint waits in the spool until there is room."""
    location = Location.parse(str(disk.folder / "run"))
    store = open_store(location)
    auditor = Auditor(store, location, keeps_all=True)
    spool = Spool(location, tmp_path / "spool")
    refused = 0
    for pages in range(3, 40):
        disk.remount(f"size={pages * 4096}")
        entry = seal(spool, pages, 1 / pages, data=os.urandom(9_000))
        try:
            Publisher(store, location, Committer(store, location)).publish(entry, TransferReport())
        except StoreFullError:
            refused += 1
            assert entry.path.exists()
        else:
            auditor.confirm(entry.record)
        auditor.look_at_rest()
    assert refused
    disk.remount("size=4m")
    spool._own.lock.release()
    assert len(Run(str(disk.folder / "run"), spool_dir=tmp_path / "spool").recover()) == refused
    auditor.look_at_rest()
    assert auditor.violations == []
    assert len(Run(str(disk.folder / "run")).checkpoints) == 37


class At(keras.callbacks.Callback):
    """Does something at the end of epochs."""

    def __init__(self, **actions):
        super().__init__()
        self.actions = actions

    def on_epoch_end(self, epoch, logs=None):
        self.actions.get(f"epoch{epoch}", lambda: None)()


def test_a_spool_that_turns_read_only_and_back(disk, tmp_path, caplog):
    """Training goes on, the user is told, and what is saved after it is writable again arrives."""
    url = str(tmp_path / "run" / NAMED)
    callback = RemoteModelCheckpoint(url, monitor="val_score", mode="max", spool_dir=disk.folder)
    settle = lambda: until(lambda: not callback._writer._pipeline.pending)  # noqa: E731
    watch = At(
        epoch0=settle,
        epoch1=lambda: (settle(), disk.cover()),
        epoch3=lambda: (settle(), disk.uncover()),
    )
    history = fit(model(), [Scores(0.1, 0.2, 0.3, 0.4, 0.5), callback, watch], epochs=5)
    assert history.epoch == [0, 1, 2, 3, 4]
    assert "could not be written to the local disk" in caplog.text
    assert "REMOTE_CKPT_SPOOL" in caplog.text
    assert [record.epoch for record in Run(str(tmp_path / "run")).checkpoints] == [0, 1, 4]
    assert callback.stats.failures == 2


@pytest.mark.parametrize("replaced", [False, True])
def test_a_spool_that_vanishes_while_training_goes_on(tmp_path, caplog, replaced):
    """It is made anew; with a file in its place training goes on, and the user is told."""
    spool, url = tmp_path / "elsewhere", str(tmp_path / "run" / NAMED)
    callback = RemoteModelCheckpoint(url, monitor="val_score", mode="max", spool_dir=spool)

    def vanish():
        until(lambda: not callback._writer._pipeline.pending)
        shutil.rmtree(spool)
        if replaced:
            spool.write_text("a file")

    history = fit(model(), [Scores(0.1, 0.2, 0.3), callback, At(epoch0=vanish)], epochs=3)
    assert history.epoch == [0, 1, 2]
    kept = [record.epoch for record in Run(str(tmp_path / "run")).checkpoints]
    assert kept == ([0] if replaced else [0, 1, 2])
    assert ("could not be written to the local disk" in caplog.text) is replaced


# The clock


@pytest.fixture
def clock(monkeypatch):
    """The system's clock, which the test sets."""

    class Clock:
        offset = timedelta(0)

    class Shifted(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + Clock.offset

    monkeypatch.setattr("remote_ckpt.saving.writer.datetime", Shifted)
    return Clock


def test_the_latest_is_the_last_saved_whatever_the_clock_does(network, tmp_path, clock):
    """Set forward a year, back to the last century: `created` keeps rising, in this process and the next."""
    network.plan = nothing_wrong
    epoch = 0
    for _ in range(2):
        saving, made = writer(network, tmp_path), model()
        for days in (0, 365, -10_000, 0):
            clock.offset = timedelta(days=days)
            saving.save(made, epoch=epoch, logs={"score": 0.5})
            saving.flush()
            assert Committer(network, PLACE).load().of(NAMED).find("latest").epoch == epoch
            epoch += 1
        saving.close()
    times = [record.created for record in Committer(network, PLACE).load().of(NAMED).checkpoints]
    assert times == sorted(set(times))


def test_the_latest_is_the_last_saved_when_an_earlier_process_left_some_behind(network, tmp_path, clock):
    """Those in the spool count as well: the clock was a day ahead when they were saved."""
    saving, made = writer(network, tmp_path), model()
    clock.offset = timedelta(days=1)
    saving.save(made, epoch=0, logs={"score": 0.5})
    with pytest.raises(DrainError):
        saving.close(timeout=5)
    for owned in filter(None, [saving._spool._own]):
        owned.lock.release()
    network.plan, clock.offset = nothing_wrong, timedelta(0)
    later = writer(network, tmp_path)
    later.save(made, epoch=1, logs={"score": 0.4})
    later.close()
    series = Committer(network, PLACE).load().of(NAMED)
    assert len(series.history) == 2
    assert series.find("latest").epoch == 1
