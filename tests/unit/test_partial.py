"""Downloads that outlive their process: which bytes are there, of which version, and what they digest to."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from records import checkpoint

from remote_ckpt.cache import STALE, Cache
from remote_ckpt.cache.following import FollowingDigest
from remote_ckpt.cache.partial import Partial, notes_of
from remote_ckpt.location import Location
from remote_ckpt.stores import Version, open_store
from remote_ckpt.stores.byte_ranges import Spans

DATA = os.urandom(5_000_000)
SIZE = len(DATA)
ONE, OTHER = Version('"one"'), Version('"other"')


def land(partial: Partial, *ranges: tuple[int, int]) -> None:
    """Do what a store does with ranges that come."""
    fd = os.open(partial.path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.ftruncate(fd, SIZE)
    for start, end in ranges:
        os.pwrite(fd, DATA[start:end], start)
        partial.landed(start, end)
    os.close(fd)


def begun(path: Path, *ranges: tuple[int, int]) -> None:
    """Leave a partial file as a process that ends in the middle."""
    partial = Partial(path, SIZE)
    partial.missing(ONE)
    land(partial, *ranges)
    partial.close()


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60))))
def test_spans_are_a_set_of_bytes(ranges: list[tuple[int, int]]) -> None:
    """In whatever order they are added, and however they overlap."""
    spans, there = Spans(), set()
    for start, end in ranges:
        spans.add(start, end)
        there |= set(range(start, end))
    missing = {byte for start, end in spans.gaps(60) for byte in range(start, end)}
    assert missing == set(range(60)) - there
    assert spans.total == len(there)
    assert spans.prefix == next(byte for byte in range(62) if byte not in there)
    assert all(left[1] < right[0] for left, right in zip(spans.gaps(60), spans.gaps(60)[1:], strict=False))


def test_a_digest_follows_a_growing_file(tmp_path: Path) -> None:
    """And is complete when the file is."""
    digest = FollowingDigest(tmp_path / "file")
    with (tmp_path / "file").open("wb", buffering=0) as file:
        for start in range(0, SIZE, 700_000):
            file.write(DATA[start : start + 700_000])
            digest.follow(min(start + 700_000, SIZE))
    assert digest.hexdigest(SIZE) == hashlib.sha256(DATA).hexdigest()
    digest.close()


def test_what_has_landed_is_not_missing_in_the_next_process(tmp_path: Path) -> None:
    """Of the same version; progress is told of it once."""
    path = tmp_path / "p.partial"
    begun(path, (2_000_000, 3_000_000), (0, 1_000_000))
    told: list[int] = []
    partial = Partial(path, SIZE, told.append)
    assert partial.missing(ONE) == [(1_000_000, 2_000_000), (3_000_000, SIZE)]
    land(partial, (3_000_000, SIZE), (1_000_000, 2_000_000))
    assert partial.missing(ONE) == []
    assert told == [2_000_000] == [partial.resumed]
    assert partial.sha256() == hashlib.sha256(DATA).hexdigest()
    partial.keep_as(tmp_path / "kept")
    partial.close()
    assert [left.name for left in tmp_path.iterdir()] == ["kept"]


def test_of_another_version_nothing_is_kept(tmp_path: Path) -> None:
    """Neither from an earlier process nor from an earlier round."""
    path = tmp_path / "p.partial"
    begun(path, (0, SIZE))
    partial = Partial(path, SIZE)
    assert partial.missing(OTHER) == [(0, SIZE)]
    assert not path.exists()
    land(partial, (0, 5))
    assert partial.missing(ONE) == [(0, SIZE)]
    assert partial.resumed == 0
    partial.close()


@pytest.mark.parametrize("harm", ["shorter", "longer", "linked", "no notes", "torn head", "other size"])
def test_a_partial_file_that_is_not_as_it_was_left_is_thrown_away(tmp_path: Path, harm: str) -> None:
    """It is begun anew."""
    path = tmp_path / "p.partial"
    begun(path, (0, SIZE))
    if harm in ("shorter", "longer"):
        os.truncate(path, SIZE - 1 if harm == "shorter" else SIZE + 1)
    elif harm == "linked":
        os.link(path, tmp_path / "second-name")
    elif harm == "no notes":
        notes_of(path).unlink()
    elif harm == "torn head":
        notes_of(path).write_text('\n{"version": "\\"one')
    else:
        notes_of(path).write_text(notes_of(path).read_text().replace(str(SIZE), "7", 1))
    partial = Partial(path, SIZE)
    assert not path.exists()
    assert partial.missing(ONE) == [(0, SIZE)]
    partial.close()


@pytest.mark.parametrize("which", ["file", "notes"])
def test_a_symbolic_link_is_removed_and_never_followed(tmp_path: Path, which: str) -> None:
    """What it points to stays as it was."""
    path, victim = tmp_path / "p.partial", tmp_path / "victim"
    begun(path, (0, SIZE))
    planted = path if which == "file" else notes_of(path)
    planted.rename(victim)
    planted.symlink_to(victim)
    before = victim.read_bytes()
    partial = Partial(path, SIZE)
    assert partial.missing(ONE) == [(0, SIZE)]
    land(partial, (0, 10))
    partial.close()
    assert victim.read_bytes() == before


def test_a_torn_line_costs_its_own_range_only(tmp_path: Path) -> None:
    """What was noted before it and after it counts."""
    path = tmp_path / "p.partial"
    begun(path, (0, 1_000_000))
    with notes_of(path).open("a") as notes:
        notes.write("2000000 3")
    partial = Partial(path, SIZE)
    partial.missing(ONE)
    land(partial, (1_000_000, 2_000_000))
    partial.close()
    partial = Partial(path, SIZE)
    assert partial.missing(ONE) == [(2_000_000, SIZE)]
    partial.close()


def test_a_straggler_is_not_listened_to(tmp_path: Path) -> None:
    """What lands after the end of a transfer that was interrupted opens nothing again."""
    path = tmp_path / "p.partial"
    partial = Partial(path, SIZE)
    partial.missing(ONE)
    partial.close()
    partial.landed(0, 5)
    assert Partial(path, SIZE).missing(ONE) == [(0, SIZE)]


def test_the_cache_removes_what_was_given_up_long_ago(tmp_path: Path) -> None:
    """Not what is young, nor what somebody is working at."""
    folder = tmp_path / "objects"
    folder.mkdir()
    store = open_store(Location.parse(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "w-00.weights.h5").write_bytes(b"abc")
    old = time.time() - STALE.total_seconds() - 60
    names = {
        "old": f"{1:064x}.weights.h5.partial",
        "old notes": f"{1:064x}.weights.h5.partial.notes",
        "young": f"{2:064x}.weights.h5.partial",
        "busy": f"{3:064x}.keras.partial",
        "verify": f"verify-{4:032x}.partial",
        "foreign": "somebody's.partial",
    }
    for name in names.values():
        (folder / name).write_bytes(b"")
        os.utime(folder / name, (old, old))
    os.utime(folder / names["young"])
    with FileLock(folder / f"{3:064x}.lock"):
        Cache(folder).get(checkpoint(sha256=hashlib.sha256(b"abc").hexdigest()), store)
    left = {label for label, name in names.items() if (folder / name).exists()}
    assert left == {"young", "busy", "foreign"}
