"""Whatever lies in the bucket as a checkpoint, and in the folders that we use: it harms nothing and nobody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import fuzzing
import keras
import pytest
from models import fit, model
from records import checkpoint, seal

from remote_ckpt import Run
from remote_ckpt.cache import Cache
from remote_ckpt.errors import CorruptCheckpointError, RemoteCkptError, SpoolError
from remote_ckpt.location import Location
from remote_ckpt.restore import load_into
from remote_ckpt.saving.spool import Spool
from remote_ckpt.stores import open_store

DAMAGED = 40


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["weights.h5", "keras", "h5"])
def test_damaged_files_are_refused_or_loaded(tmp_path: Path, suffix: str) -> None:
    """Bits, bytes, numbers and stretches changed all over a file of Keras's own: no crash, no hang, bounded memory."""
    made = model()
    fit(made, [], epochs=1)
    path = tmp_path / f"w.{suffix}"
    (made.save_weights if suffix == "weights.h5" else made.save)(path)
    code = [sys.executable, fuzzing.__file__, "load_damaged", str(path), "0", str(DAMAGED)]
    path_of_tests = str(Path(fuzzing.__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([path_of_tests, *sys.path])}
    done = subprocess.run(code, capture_output=True, text=True, timeout=280, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "refused" in done.stdout


@keras.saving.register_keras_serializable("tests")
def never(x):  # pragma: no cover - it must not run
    raise AssertionError("code from an archive was run")


def test_code_in_an_archive_is_never_run(tmp_path: Path) -> None:
    """Of a whole model its weights are loaded; what its configuration names, a lambda too, is not looked at."""
    made = model()
    path = tmp_path / "w.keras"
    made.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    evil = {"module": "builtins", "class_name": "exec", "config": {"code": f"open({str(tmp_path / 'owned')!r}, 'w')"}}
    config["config"]["layers"].append(
        {"module": "keras.layers", "class_name": "Lambda", "config": {"function": evil, "name": "evil"}}
    )
    config["build_config"] = {"class_name": "tests>never"}
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    load_into(made, path, "s3://bucket/run/w.keras")
    assert not (tmp_path / "owned").exists()


def plant(cache: Path, digest: str, outside: Path) -> None:
    """Put links to a file outside wherever the cache will write or read."""
    cache.mkdir()
    for name in (digest, f"{digest}.weights.h5", f"{digest}.weights.h5.partial", f"{digest}.weights.h5.partial.notes"):
        (cache / name).symlink_to(outside)


def test_links_in_the_cache_are_not_followed(tmp_path: Path) -> None:
    """What they point to is neither overwritten nor taken for the object."""
    spool = Spool(Location.parse(tmp_path / "run"))
    entry = seal(spool, data=b"the right bytes")
    store = open_store(Location.parse(tmp_path / "run"))
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / entry.record.key).write_bytes(b"the right bytes")
    outside = tmp_path / "outside"
    outside.write_bytes(b"do not touch me")
    plant(tmp_path / "cache", entry.record.sha256, outside)
    found = Cache(tmp_path / "cache").get(entry.record, store)
    assert found.read_bytes() == b"the right bytes"
    assert not found.is_symlink()
    assert outside.read_bytes() == b"do not touch me"


def test_a_link_in_place_of_the_caches_lock_destroys_nothing(tmp_path: Path) -> None:
    """It is refused."""
    record = checkpoint()
    outside = tmp_path / "outside"
    outside.write_bytes(b"do not touch me")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{record.sha256}.lock").symlink_to(outside)
    with pytest.raises((OSError, RemoteCkptError)):
        Cache(tmp_path / "cache").get(record, open_store(Location.parse(tmp_path / "run")))
    assert outside.read_bytes() == b"do not touch me"


def test_links_in_the_spool_are_not_followed(tmp_path: Path) -> None:
    """In a local run that others write to, a link in place of an owner's folder would have its files removed."""
    run = Run(tmp_path / "run", spool_dir=tmp_path / "spool")
    spool = Spool(run.location, tmp_path / "spool")
    entry = seal(spool, data=b"the right bytes")
    spool.close()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "diary.txt").write_text("mine")
    (spool.folder / "evil").symlink_to(outside)
    entry.path.rename(outside / entry.path.name)
    entry.path.symlink_to(outside / entry.path.name)
    assert run.recover() == []
    assert sorted(path.name for path in outside.iterdir()) == sorted(["diary.txt", entry.path.name])
    assert (outside / entry.path.name).read_bytes() == b"the right bytes"


def test_a_spool_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    """Nor one of another user."""
    outside = tmp_path / "outside"
    outside.mkdir()
    spool = Spool(Location.parse("s3://bucket/run"), tmp_path / "spool")
    spool.folder.parent.mkdir()
    spool.folder.symlink_to(outside)
    with pytest.raises(SpoolError, match="belongs to somebody else"):
        seal(spool)
    assert not list(outside.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_another_user_put_into_the_spool_is_not_uploaded(tmp_path: Path) -> None:
    """Whoever can make a folder in a shared run cannot have us publish, and sign, what is in it."""
    run = Run(tmp_path / "run", spool_dir=tmp_path / "spool")
    spool = Spool(run.location, tmp_path / "spool")
    entry = seal(spool)
    spool.close()
    os.chown(entry.path.parent, 12345, 12345)
    assert run.recover() == []


@pytest.mark.parametrize("content", [b"", b"x" * 3, b"\x89HDF\r\n\x1a\n" + b"\0" * 100])
def test_an_object_that_is_not_what_was_recorded_is_not_loaded(tmp_path: Path, content: bytes) -> None:
    """Neither another size nor another digest; and nothing of it stays in the cache."""
    run = Run(tmp_path / "run", cache_dir=tmp_path / "cache")
    spool = Spool(run.location)
    seal(spool, data=b"abc")
    spool.close()
    run.recover()
    (tmp_path / "run" / run.best.key).unlink()
    (tmp_path / "run" / "w-00.weights.h5").write_bytes(content)
    with pytest.raises(CorruptCheckpointError):
        run.load(model())
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix == ".h5" or ".partial" in path.name]


def test_folders_and_files_of_ours_are_private_whatever_the_umask(tmp_path: Path, monkeypatch) -> None:
    """Folders 0700 and files 0600: cache, notes, spool, probes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("REMOTE_CKPT_SPOOL")
    before = os.umask(0)
    try:
        run = Run("memory://private/run")
        spool = Spool(run.location)
        seal(spool)
        run.store.probe()
        from remote_ckpt.stores import probe_cache

        probe_cache.remembered("a place", run.store.probe)
        spool.close()
        run.recover()
        run.pull("best")
        seal(spool, 1)
    finally:
        os.umask(before)
    found = list((tmp_path / "xdg").rglob("*"))
    assert {
        path.relative_to(tmp_path / "xdg").parts[1]
        for path in found
        if len(path.parts) > 1 and path.parent != tmp_path / "xdg"
    } == {"objects", "probes", "spool"}
    for path in (tmp_path / "xdg", *found):
        mode = path.stat().st_mode & 0o777
        if path.is_dir():
            assert mode == 0o700, path
        elif path.suffix != ".h5" or "objects" in path.parts:  # what is sealed has the user's mode, in a private folder
            assert mode == 0o600, (path, oct(mode))
