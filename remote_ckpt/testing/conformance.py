"""The suite that every store passes; it defines what an `ObjectStore` is.

Subclass it in a test module and give it the fixture `open_run`, a function from a run's name to a store for that run
in a place that is empty at the start of each test:

```python
class TestMyStore(StoreConformance):
    @pytest.fixture
    def open_run(self, tmp_path):
        return lambda name: MyStore(tmp_path / name)
```

What a store says it cannot do (`ObjectStore.probe`) is skipped, visibly; what it claims must hold. Races prove nothing
on a server that checks a condition and writes afterwards: say so by `atomic = False`, and they are skipped, visibly.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from remote_ckpt.digests import digest_file
from remote_ckpt.errors import InvalidRequestError, ObjectNotFoundError, PreconditionFailedError
from remote_ckpt.stores import (
    BLOCK,
    MIB,
    DeltaBase,
    Digests,
    Expect,
    MemoryJournal,
    ObjectInfo,
    ObjectStore,
    TransferReport,
    Version,
)

OpenRun = Callable[[str], ObjectStore]

LIMIT = MIB
LARGE = 2 * BLOCK + 3 * MIB + 7  # several parts, the last one shorter
AWKWARD_KEYS = ("a b.h5", "loss=0.5+acc.h5", "100%.h5", "é-漢.h5", "deep/er/w.h5", "[x]*?.h5", "a#b&c;d.h5", "~'(!).h5")


def make_file(path: Path, size: int, *, seed: int = 0) -> Digests:
    """Write `size` reproducible random bytes and return their digests."""
    path.write_bytes(random.Random(seed).randbytes(size))
    return digest_file(path, blocks=True)


def upload(
    store: ObjectStore, key: str, source: Path, digests: Digests, *, base: DeltaBase | None = None
) -> tuple[ObjectInfo, TransferReport]:
    """Upload with a throw-away journal; return what was stored and what it took."""
    report = TransferReport()
    info = store.upload(key, source, digests=digests, journal=MemoryJournal(), report=report, base=base)
    return info, report


def contents(store: ObjectStore, key: str, size: int, folder: Path) -> bytes:
    """Fetch an object and return its bytes."""
    target = folder / "fetched"
    store.fetch(key, target, size=size)
    return target.read_bytes()


def keys(store: ObjectStore, prefix: str = "") -> set[str]:
    """Return the keys that `scan` yields."""
    return {info.key for info in store.scan(prefix)}


class StoreConformance:
    """Facts that hold for every store.

    Attributes:
        atomic: Whether the server checks a condition and writes in one step.
    """

    atomic = True

    @pytest.fixture
    def store(self, open_run: OpenRun) -> ObjectStore:
        """A store for an empty run."""
        return open_run("run")

    # Small objects

    def test_a_missing_object_is_not_found(self, store: ObjectStore) -> None:
        """Reading and looking say so with an error that is also a FileNotFoundError."""
        for verb in (lambda: store.read("manifest.json", limit=LIMIT), lambda: store.stat("manifest.json")):
            with pytest.raises(ObjectNotFoundError):
                verb()

    def test_what_was_written_is_read(self, store: ObjectStore) -> None:
        """The version of a write is the version of a later read and look."""
        version = store.write("manifest.json", b"{}", expect=Expect.ANYTHING)
        assert store.read("manifest.json", limit=LIMIT) == (b"{}", version)
        info = store.stat("manifest.json")
        assert (info.key, info.size, info.version) == ("manifest.json", 2, version)

    def test_every_write_of_other_bytes_has_another_version(self, store: ObjectStore) -> None:
        """Versions tell states apart."""
        versions = [store.write("manifest.json", bytes([n]), expect=Expect.ANYTHING) for n in range(3)]
        assert len(set(versions)) == 3

    def test_an_empty_object_is_an_object(self, store: ObjectStore) -> None:
        """No bytes are not the same as no object."""
        store.write("empty", b"", expect=Expect.ANYTHING)
        assert store.read("empty", limit=LIMIT)[0] == b""

    def test_more_than_the_limit_is_not_read(self, store: ObjectStore) -> None:
        """An object that has grown enormous does not reach memory."""
        store.write("manifest.json", b"x" * 100, expect=Expect.ANYTHING)
        assert store.read("manifest.json", limit=100)[0] == b"x" * 100
        with pytest.raises(InvalidRequestError):
            store.read("manifest.json", limit=99)

    def test_a_writer_that_expects_nothing_is_refused_when_there_is_something(self, store: ObjectStore) -> None:
        """The old bytes stay."""
        store.write("manifest.json", b"first", expect=Expect.ABSENT)
        with pytest.raises(PreconditionFailedError):
            store.write("manifest.json", b"second", expect=Expect.ABSENT)
        assert store.read("manifest.json", limit=LIMIT)[0] == b"first"

    def test_a_writer_with_a_stale_version_is_refused(self, store: ObjectStore) -> None:
        """The right version is accepted, also twice in a row."""
        first = store.write("manifest.json", b"first", expect=Expect.ABSENT)
        second = store.write("manifest.json", b"second", expect=first)
        with pytest.raises(PreconditionFailedError):
            store.write("manifest.json", b"stale", expect=first)
        store.write("manifest.json", b"third", expect=second)
        assert store.read("manifest.json", limit=LIMIT)[0] == b"third"

    def test_a_writer_that_expects_a_version_is_refused_when_the_object_is_gone(self, store: ObjectStore) -> None:
        """A deleted object is not brought back by accident."""
        version = store.write("manifest.json", b"first", expect=Expect.ABSENT)
        store.delete("manifest.json")
        with pytest.raises(PreconditionFailedError):
            store.write("manifest.json", b"second", expect=version)
        assert keys(store) == set()

    @pytest.fixture
    def race(self) -> None:
        """Skip a race where its outcome is chance."""
        if not self.atomic:
            pytest.skip("this server checks a condition and writes afterwards, without a lock")

    @pytest.mark.usefixtures("race")
    def test_no_increment_of_eight_threads_is_lost(self, store: ObjectStore) -> None:
        """Compare-and-swap from several threads of one process counts right, whatever the store."""
        store.write("counter", b"0", expect=Expect.ABSENT)

        def increment(_: int) -> None:
            while True:
                count, version = store.read("counter", limit=LIMIT)
                try:
                    store.write("counter", b"%d" % (int(count) + 1), expect=version)
                except PreconditionFailedError:
                    continue
                return

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(increment, range(40)))
        assert store.read("counter", limit=LIMIT)[0] == b"40"

    # Large objects

    @pytest.mark.parametrize("size", [0, 1, 5 * MIB, BLOCK, LARGE])
    def test_what_was_uploaded_is_fetched(self, store: ObjectStore, tmp_path: Path, size: int) -> None:
        """Byte for byte, at every number of parts, and with nothing left beside it."""
        digests = make_file(tmp_path / "source", size)
        info, report = upload(store, "w.h5", tmp_path / "source", digests)
        assert (info.key, info.size) == ("w.h5", size)
        assert info.crc32c in (None, digests.crc32c)
        assert report.sent + report.reused >= size
        assert contents(store, "w.h5", size, tmp_path) == (tmp_path / "source").read_bytes()
        assert keys(store) == {"w.h5"}

    def test_progress_adds_up_to_the_size(self, store: ObjectStore, tmp_path: Path) -> None:
        """Both ways."""
        digests = make_file(tmp_path / "source", LARGE)
        up: list[int] = []
        down: list[int] = []
        store.upload(
            "w.h5",
            tmp_path / "source",
            digests=digests,
            journal=MemoryJournal(),
            report=TransferReport(),
            progress=up.append,
        )
        store.fetch("w.h5", tmp_path / "target", size=LARGE, progress=down.append)
        assert (sum(up), sum(down)) in ((LARGE, LARGE), (LARGE, 0))

    @pytest.mark.parametrize("size", [10, LARGE])
    def test_an_upload_never_replaces_other_bytes(self, store: ObjectStore, tmp_path: Path, size: int) -> None:
        """The key is taken, whether the object is small or has parts."""
        first = make_file(tmp_path / "first", size, seed=1)
        second = make_file(tmp_path / "second", size, seed=2)
        upload(store, "w.h5", tmp_path / "first", first)
        with pytest.raises(PreconditionFailedError):
            upload(store, "w.h5", tmp_path / "second", second)
        assert contents(store, "w.h5", size, tmp_path) == (tmp_path / "first").read_bytes()
        assert keys(store) == {"w.h5"}

    @pytest.mark.parametrize("size", [10, LARGE])
    def test_uploading_the_same_bytes_again_is_no_error(self, store: ObjectStore, tmp_path: Path, size: int) -> None:
        """An upload whose answer was lost is found to be ours."""
        digests = make_file(tmp_path / "source", size)
        upload(store, "w.h5", tmp_path / "source", digests)
        info, _ = upload(store, "w.h5", tmp_path / "source", digests)
        assert info.size == size
        assert keys(store) == {"w.h5"}

    @pytest.mark.usefixtures("race")
    def test_of_many_uploads_to_one_key_exactly_one_wins(self, store: ObjectStore, tmp_path: Path) -> None:
        """The others are told that the key is taken."""
        won: list[int] = []
        start = threading.Barrier(4)

        def race(n: int) -> None:
            digests = make_file(tmp_path / f"source-{n}", 100, seed=n)
            start.wait()
            try:
                upload(store, "w.h5", tmp_path / f"source-{n}", digests)
            except PreconditionFailedError:
                return
            won.append(n)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(race, range(4)))
        assert len(won) == 1
        assert contents(store, "w.h5", 100, tmp_path) == (tmp_path / f"source-{won[0]}").read_bytes()

    def test_fetching_another_size_than_promised_is_refused(self, store: ObjectStore, tmp_path: Path) -> None:
        """Whoever replaced the object broke the promise; the caller learns it."""
        store.write("w.h5", b"short", expect=Expect.ANYTHING)
        with pytest.raises(PreconditionFailedError):
            store.fetch("w.h5", tmp_path / "target", size=4)
        with pytest.raises(ObjectNotFoundError):
            store.fetch("other.h5", tmp_path / "target", size=4)

    @pytest.mark.parametrize("changed", [(), (0,), (BLOCK + 5,), (LARGE - 1,)])
    def test_a_base_changes_the_cost_and_never_the_bytes(
        self, store: ObjectStore, tmp_path: Path, changed: tuple[int, ...]
    ) -> None:
        """What differs from the earlier object is sent, the rest may be copied."""
        first = make_file(tmp_path / "first", LARGE)
        data = bytearray((tmp_path / "first").read_bytes())
        for position in changed:
            data[position] ^= 0xFF
        (tmp_path / "second").write_bytes(data)
        upload(store, "1.h5", tmp_path / "first", first)
        digests = digest_file(tmp_path / "second", blocks=True)
        _, report = upload(store, "2.h5", tmp_path / "second", digests, base=DeltaBase("1.h5", first))
        assert contents(store, "2.h5", LARGE, tmp_path) == bytes(data)
        assert report.sent + report.reused >= LARGE

    def test_a_base_that_is_gone_or_changed_costs_nothing_but_time(self, store: ObjectStore, tmp_path: Path) -> None:
        """Everything is sent."""
        digests = make_file(tmp_path / "source", LARGE)
        upload(store, "2.h5", tmp_path / "source", digests, base=DeltaBase("gone.h5", digests))
        assert contents(store, "2.h5", LARGE, tmp_path) == (tmp_path / "source").read_bytes()
        other = make_file(tmp_path / "other", LARGE, seed=9)
        upload(store, "other.h5", tmp_path / "other", other)
        upload(
            store, "3.h5", tmp_path / "source", digests, base=DeltaBase("other.h5", digests)
        )  # not what it says it is
        assert contents(store, "3.h5", LARGE, tmp_path) == (tmp_path / "source").read_bytes()

    def test_an_upload_leaves_its_source_alone(self, store: ObjectStore, tmp_path: Path) -> None:
        """Overwriting the object later does not reach back into the spool, nor the other way round."""
        digests = make_file(tmp_path / "source", 10)
        upload(store, "w.h5", tmp_path / "source", digests)
        before = (tmp_path / "source").read_bytes()
        store.write("w.h5", b"replaced", expect=Expect.ANYTHING)
        assert (tmp_path / "source").read_bytes() == before
        os.unlink(tmp_path / "source")  # noqa: PTH108
        assert store.read("w.h5", limit=LIMIT)[0] == b"replaced"

    # Keeping

    def test_a_copy_replaces_its_target(self, store: ObjectStore) -> None:
        """And does not follow its source afterwards."""
        store.write("best.h5", b"old", expect=Expect.ANYTHING)
        store.write("w.h5", b"new", expect=Expect.ANYTHING)
        assert store.copy("w.h5", "best.h5").size == 3
        store.write("w.h5", b"newer", expect=Expect.ANYTHING)
        assert store.read("best.h5", limit=LIMIT)[0] == b"new"

    def test_a_copy_of_nothing_is_not_found(self, store: ObjectStore) -> None:
        """The target stays as it was."""
        store.write("best.h5", b"old", expect=Expect.ANYTHING)
        with pytest.raises(ObjectNotFoundError):
            store.copy("w.h5", "best.h5")
        assert store.read("best.h5", limit=LIMIT)[0] == b"old"

    def test_deleting_twice_is_deleting_once(self, store: ObjectStore) -> None:
        """What does not exist is deleted already."""
        store.write("w.h5", b"x", expect=Expect.ANYTHING)
        store.delete("w.h5")
        store.delete("w.h5")
        assert keys(store) == set()

    def test_scan_sees_this_run_and_no_other(self, open_run: OpenRun) -> None:
        """A run whose name begins alike is another run."""
        store, neighbour = open_run("run"), open_run("run-2")
        neighbour.write("w.h5", b"x", expect=Expect.ANYTHING)
        assert keys(store) == set()
        for key in ("a.h5", "a/b.h5", "b.h5", ".remote_ckpt/c.h5"):
            store.write(key, b"x", expect=Expect.ANYTHING)
        assert keys(store) == {"a.h5", "a/b.h5", "b.h5", ".remote_ckpt/c.h5"}
        assert keys(store, "a") == {"a.h5", "a/b.h5"}
        assert keys(store, "a/") == {"a/b.h5"}

    def test_scan_tells_of_an_object_what_a_look_tells(self, store: ObjectStore) -> None:
        """A sweep finds by the one and deletes by the other; S3 rounds one of the two times to seconds."""
        store.write("w.h5", b"old", expect=Expect.ANYTHING)
        (listed,), seen = store.scan(), store.stat("w.h5")
        assert listed.size == seen.size == 3
        assert listed.modified is not None
        assert seen.modified is not None
        assert abs((listed.modified - seen.modified).total_seconds()) <= 1.0

    def test_a_deletion_with_a_condition_looks_first(self, store: ObjectStore) -> None:
        """What is not the object that was meant stays; the answer is whether nothing is there."""
        store.write("w.h5", b"old", expect=Expect.ANYTHING)
        assert not store.delete_if("w.h5", lambda info: info.size != 3)
        assert keys(store) == {"w.h5"}
        assert store.delete_if("w.h5", lambda info: info.size == 3)
        assert store.delete_if("w.h5", lambda info: info.size == 3)
        assert keys(store) == set()

    def test_a_deletion_spares_what_took_the_place_of_what_was_seen(self, open_run: OpenRun) -> None:
        """Another writer was quicker: between our look and our deletion, the name is a new object's."""
        store, other = open_run("run"), open_run("run")
        store.probe()  # on a server that ignores conditions it is looked at again
        store.write("w.h5", b"old", expect=Expect.ANYTHING)

        def is_it(_: ObjectInfo) -> bool:
            other.write("w.h5", b"new", expect=Expect.ANYTHING)
            return True

        assert not store.delete_if("w.h5", is_it)
        assert other.read("w.h5", limit=LIMIT)[0] == b"new"
        with pytest.raises(PreconditionFailedError):
            store.delete_exactly(replace(store.stat("w.h5"), version=Version("1" * 16)))

    @pytest.mark.parametrize("size", [10, LARGE])
    def test_an_equal_object_of_another_owner_is_not_taken_for_ours(
        self, open_run: OpenRun, tmp_path: Path, size: int
    ) -> None:
        """It is deleted when that one wants. Our own is found again, by whoever goes on."""
        store = open_run("run")
        if not store.probe().owners:
            pytest.skip("this store keeps no owners")
        digests = make_file(tmp_path / "theirs", size)
        make_file(tmp_path / "ours", size)

        def send(name: str) -> ObjectInfo:
            return store.upload(
                "w.h5",
                tmp_path / name,
                digests=digests,
                journal=MemoryJournal(),
                report=TransferReport(),
                owner=name,
            )

        first = send("theirs")
        with pytest.raises(PreconditionFailedError):
            send("ours")
        assert send("theirs").version == first.version
        assert contents(store, "w.h5", size, tmp_path) == (tmp_path / "ours").read_bytes()

    def test_scan_sees_what_another_writer_has_just_done(self, open_run: OpenRun) -> None:
        """No listing comes from a cache."""
        store, other = open_run("run"), open_run("run")
        assert keys(store) == set()
        other.write("w.h5", b"x", expect=Expect.ANYTHING)
        assert keys(store) == {"w.h5"}
        assert store.stat("w.h5").size == 1
        other.delete("w.h5")
        assert keys(store) == set()

    def test_find_returns_objects_of_a_name_in_any_folder(self, store: ObjectStore) -> None:
        """In order, without those in hidden folders, and within a bound."""
        for key in ("m.json", "b/m.json", "a/b/m.json", "a/xm.json", ".remote_ckpt/m.json", "a/.x/m.json"):
            store.write(key, b"x", expect=Expect.ANYTHING)
        assert store.find("m.json") == ["a/b/m.json", "b/m.json", "m.json"]
        with pytest.raises(InvalidRequestError):
            store.find("m.json", most=2)

    @pytest.mark.parametrize("key", AWKWARD_KEYS)
    def test_any_key_works_with_every_verb(self, store: ObjectStore, tmp_path: Path, key: str) -> None:
        """Spaces, signs, other alphabets, folders, and what looks like a pattern."""
        digests = make_file(tmp_path / "source", 100)
        upload(store, key, tmp_path / "source", digests)
        assert contents(store, key, 100, tmp_path) == (tmp_path / "source").read_bytes()
        assert store.stat(key).size == 100
        store.copy(key, f"copy of {key}")
        assert keys(store) == {key, f"copy of {key}"}
        store.delete(key)
        assert keys(store) == {f"copy of {key}"}

    def test_a_probe_leaves_nothing_behind(self, store: ObjectStore) -> None:
        """And says the same when asked again."""
        assert store.probe() == store.probe()
        assert keys(store) == set()
        assert store.sweep_uploads(timedelta(0)) == []

    def test_a_sweep_touches_no_finished_object(self, store: ObjectStore, tmp_path: Path) -> None:
        """Only unfinished uploads are swept."""
        digests = make_file(tmp_path / "source", LARGE)
        upload(store, "w.h5", tmp_path / "source", digests)
        assert store.sweep_uploads(timedelta(0)) == []
        assert keys(store) == {"w.h5"}

    def test_a_store_works_after_reconnecting(self, store: ObjectStore) -> None:
        """A fresh session sees the same objects."""
        store.write("w.h5", b"x", expect=Expect.ANYTHING)
        store.reconnect()
        assert store.read("w.h5", limit=LIMIT)[0] == b"x"
