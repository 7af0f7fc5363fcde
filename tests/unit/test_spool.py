"""Sealed checkpoints on the local disk."""

import os
import socket
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock
from records import seal

from remote_ckpt.errors import SpoolError
from remote_ckpt.location import Location
from remote_ckpt.run import Run
from remote_ckpt.saving import pipeline, spool_owners
from remote_ckpt.saving.spool import Spool

RUN = Location.parse("s3://bucket/run")


def test_what_a_dead_process_sealed_is_adopted_in_order(tmp_path):
    """By whoever comes next on this machine."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from records import seal; from remote_ckpt.location import Location\n"
        "from remote_ckpt.saving.spool import Spool\n"
        "spool = Spool(Location.parse('s3://bucket/run'), sys.argv[1])\n"
        "seal(spool, 2); seal(spool, 1)\n"
        "(spool.scratch() / 'id3.partial.weights.h5').write_bytes(b'half')\n"
        "os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parents[1])], check=False)
    spool = Spool(RUN, tmp_path)
    entries = spool.adopt()
    assert [entry.record.id for entry in entries] == ["id1", "id2"]
    assert all(entry.recovered for entry in entries)
    assert not list(tmp_path.rglob("*partial*"))
    for entry in entries:
        entry.drop()
    spool.close()
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_processes_come_and_go_without_getting_into_each_others_way(tmp_path):
    """One that looks for dead ones' folders takes none that is just being made, nor stumbles over one that goes."""
    ended = time.monotonic() + 2.0

    def adopt(_):
        while time.monotonic() < ended:
            assert Spool(RUN, tmp_path).adopt() == []

    def come_and_go(_):
        while time.monotonic() < ended:
            spool = Spool(RUN, tmp_path)
            seal(spool).drop()
            spool.close()

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(work, None) for work in (adopt, come_and_go, adopt, come_and_go)]
    for one in done:
        one.result()


def test_a_folder_that_a_dead_process_was_making_is_removed(tmp_path):
    """One of a process that lives is not: it is about to lock it."""
    spool = Spool(RUN, tmp_path)
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    for pid in (process.pid, os.getpid()):
        (spool.folder / f".{socket.gethostname()[:40]}-{pid}-00000000").mkdir(parents=True, mode=0o700)
    spool.adopt()
    assert [path.name.split("-")[-2] for path in spool.folder.glob(".*")] == [str(os.getpid())]


def test_what_a_living_process_has_stays_its_own(tmp_path):
    """Its lock cannot be taken, but anyone may look."""
    owner = Spool(RUN, tmp_path)
    seal(owner, 1)
    other = Spool(RUN, tmp_path)
    assert other.adopt() == []
    assert [entry.record.id for entry in other.waiting()] == ["id1"]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The spool of a process on another host, alive and writing; its lock does not reach this one."""
    with monkeypatch.context() as there:
        there.setattr(socket, "gethostname", lambda: "node-b")
        spool = Spool(RUN, tmp_path)
        seal(spool, 1)
    (spool.scratch() / "id2.partial.weights.h5").write_bytes(b"being written")
    spool._own.lock.release()
    return spool


def silence(folder, *names):
    """Let a process have shown no life for two hours."""
    for path in [folder / name for name in names] or [folder, *folder.iterdir()]:
        os.utime(path, (time.time() - 7200, time.time() - 7200))


def test_a_free_lock_of_another_host_is_no_proof_of_death(tmp_path, elsewhere, caplog):
    """What it writes stays, and what it has sealed; whoever looks for that is told where it is."""
    assert Spool(RUN, tmp_path).adopt() == []
    assert len(list(elsewhere.scratch().glob("*.h5"))) == 2
    assert "node-b, which may be alive" in caplog.text


@pytest.mark.parametrize("shown", ["lock", "id2.partial.weights.h5"])
def test_one_sign_of_life_is_enough(tmp_path, elsewhere, shown):
    """A touched lock, or a file that grows."""
    folder = elsewhere.scratch()
    silence(folder, *({"lock", "id2.partial.weights.h5"} - {shown}))
    assert Spool(RUN, tmp_path).adopt() == []


def test_another_hosts_checkpoints_are_adopted_after_a_long_silence(tmp_path, elsewhere):
    """Under a new name, so that one alone gets them, and none of their owner's, if it should come back."""
    folder = elsewhere.scratch()
    silence(folder)
    (entry,) = Spool(RUN, tmp_path).adopt()
    assert entry.path.read_bytes()
    assert not folder.exists()
    assert not list(tmp_path.rglob("*partial*"))


def test_silence_is_measured_by_the_filesystems_own_clock(tmp_path, elsewhere, monkeypatch):
    """Ours may be wrong by days."""
    monkeypatch.setattr(time, "time", lambda: 1e11)
    assert Spool(RUN, tmp_path).adopt() == []


def test_another_host_that_ended_in_good_order_need_not_be_waited_for(tmp_path, elsewhere):
    """It says so when it closes."""
    elsewhere.close()
    assert [entry.record.id for entry in Spool(RUN, tmp_path).adopt()] == ["id1"]


def test_who_has_adopted_shows_life_in_the_others_place(tmp_path, elsewhere, monkeypatch):
    """A third host would take it for dead else, while it uploads for hours."""
    monkeypatch.setattr(spool_owners, "BEAT", 0.0)
    silence(elsewhere.scratch())
    spool = Spool(RUN, tmp_path)
    (entry,) = spool.adopt()
    silence(entry.path.parent)
    spool.beating(None)(1)
    with monkeypatch.context() as there:
        there.setattr(socket, "gethostname", lambda: "node-c")
        spool._adopted[0].lock.release()
        assert Spool(RUN, tmp_path).adopt() == []


def test_an_idle_writer_shows_life(tmp_path, monkeypatch):
    """Its sealer does, while it waits for work."""
    beaten = threading.Event()
    monkeypatch.setattr(pipeline, "BEAT", 0.001)
    monkeypatch.setattr(Spool, "beat", lambda self: beaten.set())
    writer = Run(str(tmp_path / "run")).writer("w-{epoch:02d}.weights.h5")
    writer._pipeline._start()
    assert beaten.wait(60.0)
    writer.close()


def test_a_file_without_its_seal_counts_for_nothing(tmp_path):
    """Nor does a seal whose file is short."""
    spool = Spool(RUN, tmp_path)
    entry, short = seal(spool, 1), seal(spool, 2)
    (entry.path.parent / "id1.json").unlink()
    short.path.write_bytes(b"short")
    spool._own.lock.release()
    assert Spool(RUN, tmp_path).adopt() == []


def test_files_are_the_users_alone(tmp_path):
    """Nobody else gets into the folders; notes are 0600 besides."""
    spool = Spool(RUN, tmp_path / "spool")
    entry = seal(spool, 1)
    entry.journal.save({"a": 1})
    found = list((tmp_path / "spool").rglob("*"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.suffix == ".json"} == {0o600}


def test_a_failed_write_leaves_nothing_and_says_what_to_do(tmp_path):
    """Whatever the writer raises comes out."""
    spool = Spool(RUN, tmp_path)
    with pytest.raises(SpoolError, match="spool_dir"):
        spool.seal("id1", ".weights.h5", lambda path: (_ for _ in ()).throw(OSError(30, "Read-only file system")), None)
    assert not list(tmp_path.rglob("id1*"))


def test_two_runs_do_not_share_a_folder(tmp_path):
    """Each is named by its URL's digest."""
    assert Spool(RUN, tmp_path).folder != Spool(Location.parse("s3://bucket/run2"), tmp_path).folder


def test_the_limit_counts_what_waits(tmp_path):
    """And half the free disk is left alone."""
    spool = Spool(RUN, tmp_path, limit=10_000)
    before = spool.room()
    seal(spool, 1, data=b"x" * 4000)
    assert before == 10_000
    assert spool.room() <= 6000


def test_a_folder_is_locked_before_anyone_can_see_it(tmp_path, monkeypatch):
    """Or eight processes that start together would take each other's for a dead one's."""
    seen = []
    acquire = FileLock.acquire

    def look_first(lock, *args, **options):
        if not seen:
            seen.append(Spool(RUN, tmp_path)._owners())
        return acquire(lock, *args, **options)

    monkeypatch.setattr(FileLock, "acquire", look_first)
    spool = Spool(RUN, tmp_path)
    folder = spool.scratch()
    assert seen == [[]]
    assert folder.is_dir()
    assert Spool(RUN, tmp_path).adopt() == []
    assert folder.is_dir()


def test_a_file_that_is_done_with_is_written_over(tmp_path):
    """Whatever it held: the next one has its own bytes and no others, and nothing stays behind at the end."""
    spool = Spool(RUN, tmp_path, limit=10_000)
    first = seal(spool, 1, data=b"x" * 4000)
    inode = first.path.stat().st_ino
    first.drop()
    assert spool.room() == 10_000
    second = seal(spool, 2, data=b"y" * 3000)
    assert second.path.stat().st_ino == inode
    assert second.path.read_bytes() == b"y" * 3000
    assert not first.path.exists()
    second.drop()
    spool.close()
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_an_object_of_a_local_run_is_never_written_over(tmp_path):
    """It is a link to the file that was sealed."""
    spool = Spool(RUN, tmp_path / "spool")
    first = seal(spool, 1, data=b"x" * 4000)
    published = tmp_path / "w-01.weights.h5"
    published.hardlink_to(first.path)
    first.drop()
    second = seal(spool, 2, data=b"y" * 4000)
    assert published.read_bytes() == b"x" * 4000
    assert second.path.read_bytes() == b"y" * 4000
