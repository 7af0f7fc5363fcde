"""Whatever lies in the bucket under the manifest's name: it is understood, or refused by an error of ours."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from records import TEMPLATE, checkpoint, seal, terms

from remote_ckpt.cli._facts import age, as_json, copy_command, number
from remote_ckpt.errors import ManifestError, RemoteCkptError
from remote_ckpt.location import SUFFIXES, Location
from remote_ckpt.records import Manifest, Series
from remote_ckpt.run import Run
from remote_ckpt.saving.spool import Spool

RUN = Location.parse("s3://bucket/run")
BUDGET = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))

NASTY_TEXT = st.sampled_from(
    [
        *("", "..", "/etc/passwd", "../../x.keras", "a/../../x.h5", "s3://other/run/x.keras", "~/x.keras", "x.keras/"),
        *("a\x00b.keras", "a\x1b]0;x\x07.keras", "a\u202eb.keras", "a\x9b2J.h5", "C:\\x.keras", "//host/x.keras"),
        *("manifest.json", ".remote_ckpt/lock", "x.txt", "x", "x" * 5000, "NaN", "1e999", "{epoch}.keras", "{0.a}.h5"),
        *("best", "latest", "\ud800.keras", "a\nb.keras", "0", "2026-01-01T00:00:00", "0001-01-01T00:00:00+23:59"),
        *("9999-12-31T23:59:59-23:59", "2026-01-01T00:00:00Z", "P1D"),
    ]
)
NASTY_NUMBER = st.sampled_from(
    [0, -1, 1, 2, 1 << 53, 1 << 63, 1 << 64, 10**400, -(10**400), 1e308, 1e-320, 0.5, float("nan"), float("inf")]
)
SCALARS = st.none() | st.booleans() | NASTY_NUMBER | st.integers() | st.floats() | NASTY_TEXT | st.text(max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NASTY_TEXT | st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def valid() -> dict[str, Any]:
    series = Series(monitor="val_loss", mode="min")
    for index, score in enumerate((0.5, float("nan"), 0.25)):
        series = series.with_checkpoint(checkpoint(index, score))
    parsed: dict[str, Any] = json.loads(Manifest().with_series(TEMPLATE, series).dump())
    return parsed


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in `value`, as a path of keys and indices."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, content in inner for place in places(content, (*path, name)))]


PLACES = [place for place in places(valid()) if place]


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A manifest with a few places replaced, removed, renamed or added."""
    content = valid()
    for _ in range(draw(st.integers(1, 3))):
        *outer, last = draw(st.sampled_from(PLACES))
        place = content
        with suppress(KeyError, IndexError, TypeError):  # an earlier change removed it
            for name in outer:
                place = place[name]
            how = draw(st.sampled_from(["replace", "remove", "rename", "add", "double"]))
            if how == "remove":
                del place[last]
            elif how == "rename" and isinstance(place, dict):
                place[draw(NASTY_TEXT)] = place.pop(last)
            elif how == "add" and isinstance(place, dict):
                place[draw(NASTY_TEXT)] = draw(JSON)
            elif how == "double" and isinstance(place, list):
                place.append(copy.deepcopy(place[last]))
            else:
                place[last] = draw(JSON)
    return json.dumps(content).encode()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A manifest whose bytes were changed, cut, or repeated."""
    data = bytearray(json.dumps(valid(), indent=draw(st.sampled_from([None, 1]))).encode())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data[: draw(st.integers(len(data) // 2, len(data)))]) if draw(st.booleans()) else bytes(data)


def use(manifest: Manifest) -> None:
    """Do all that anyone does with a manifest."""
    for template, series in manifest.series.items():
        for record in series.checkpoints:
            assert record.key.endswith(SUFFIXES)
            assert not record.key.startswith("/")
            assert ".." not in record.key.split("/")
            assert record.url == f"s3://bucket/run/{record.key}"
            age(record.created), number(record.score), json.dumps(as_json(record)), copy_command(record)
        for which in ("best", "latest", 0, "id1", ""):
            series.find(which)
        changed = series.scored_by("val_loss", "max").with_checkpoint(checkpoint(7, 0.1)).pruned(1, 1)[0]
        assert Manifest.parse(manifest.with_series(template, changed).dump(), RUN).of(template) is not None
    again = Manifest.parse(manifest.dump(), RUN)
    assert again.dump() == manifest.dump()


def understood_or_refused(data: bytes) -> None:
    """Parse; what is refused is refused in words."""
    try:
        manifest = Manifest.parse(data, RUN)
    except ManifestError as error:
        assert "s3://bucket/run/manifest.json" in str(error)  # noqa: PT017
        assert str(error).isprintable()  # noqa: PT017
        assert len(str(error)) < 2000  # noqa: PT017
        return
    use(manifest)


@BUDGET
@given(spoilt())
def test_a_manifest_with_anything_anywhere(data: bytes) -> None:
    """Wrong types, huge numbers, foreign keys, odd text, missing and unknown fields."""
    understood_or_refused(data)


@BUDGET
@given(damaged())
@example(b"\xff\xfe{\x00}\x00")
@example(b"\xef\xbb\xbf{}")
def test_a_manifest_with_damaged_bytes(data: bytes) -> None:
    """Cut, flipped, not even text."""
    understood_or_refused(data)


@BUDGET
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b'{"format": 1, "format": 1, "series": {}, "series": {"a": 1}}')
@example(b'{"format": 1, "revision": ' + b"9" * 5000 + b"}")
@example(b'{"format": 1, "revision": ' + b"9" * 4000 + b"}")
@example(b'{"format": 1e400}')
@example(b'{"format": 1.0, "x": NaN}')
@example(b'{"format": 1, "x": -Infinity, "y": {"z": [NaN]}}')
@example(b'{"format": 1, "x": "\\ud800"}')
@example(b'{"format": 1, "\\udfff": 1}')
@example(b'{"format": 1, "x": ' + b'{"x":' * 500 + b"1" + b"}" * 501)
@example(b'{"format": 1, "x": ' + b"[" * 250 + b"]" * 250 + b"}")
@example(b'{"format": 1, "x": ' + b"[" * 900 + b"]" * 900 + b"}")
def test_what_is_no_manifest(data: bytes) -> None:
    """Any bytes, any JSON."""
    understood_or_refused(data)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(spoilt())
def test_reading_and_writing_a_run_that_somebody_spoilt(data: bytes) -> None:
    """Every verb succeeds or raises an error of ours, and nothing is written outside the run, the cache, the spool."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        (top / "run").mkdir()
        (top / "run" / "manifest.json").write_bytes(data)
        (top / "secret.keras").write_bytes(b"abc")
        run = Run(top / "run", cache_dir=top / "cache", spool_dir=top / "spool")
        verbs = [
            *(lambda: run.best, lambda: run.latest, lambda: run.checkpoints, lambda: run.pull("best")),
            *(lambda: run.pull("latest", top / "run"), lambda: list(run.verify()), lambda: run.pull(0)),
            *(lambda: publish(run, top), lambda: run.prune(keep_best=1), run.sweep),
        ]
        for verb in verbs:
            with suppress(RemoteCkptError):
                verb()
        assert sorted(path.name for path in top.iterdir() if path.name not in ("cache", "spool")) == [
            "run",
            "secret.keras",
        ]
        assert (top / "secret.keras").read_bytes() == b"abc"


def publish(run: Run, top: Path) -> None:
    """Commit one checkpoint more."""
    spool = Spool(run.location, top / "spool")
    seal(spool, 9, 0.01, rules=terms(keep_best=1, keep_last=1))
    spool.close()
    run.recover()


BOMBS = {
    "lists": "b'{\"format\": 1, \"x\": [' + b'[],' * (21 << 20) + b'[]]}'",
    "objects": "b'{\"format\": 1, \"x\": [' + b'{},' * (21 << 20) + b'{}]}'",
    "numbers": "b'{\"format\": 1, \"x\": [' + b'1,' * (31 << 20) + b'1]}'",
    "records": 'b\'{"format": 1, "series": {"a": {"monitor": "m", "mode": "min", "history": [\''
    " + b'{},' * (21 << 20) + b'{}]}}}'",
    "depth": "b'[' * (63 << 20)",
    "text": "b'{\"format\": 1, \"x\": \"' + b'x' * (63 << 20) + b'\"}'",
    "digits": "b'{\"format\": 1, \"revision\": ' + b'9' * (63 << 20) + b'}'",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_memory_is_bounded_whatever_the_manifest_says(bomb: str) -> None:
    """As large as it may be, and made to grow: parsing it stays within 1 GiB, in a process that has no more."""
    code = (
        "import resource\n"
        "from remote_ckpt.records import MAX_MANIFEST_BYTES, Manifest\n"
        "from remote_ckpt.errors import ManifestError\n"
        "from remote_ckpt.location import Location\n"
        f"data = {BOMBS[bomb]}\n"
        "assert len(data) <= MAX_MANIFEST_BYTES\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "try: Manifest.parse(data, Location.parse('s3://bucket/run'))\n"
        "except ManifestError as error: print('refused', str(error)[:60])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_moment_without_a_zone_does_not_break_comparisons() -> None:
    """Other writers' moments have one."""
    content = valid()
    (series,) = content["series"].values()
    series["checkpoints"][0]["created"] = "2026-01-01T00:00:00"
    with suppress(ManifestError):
        use(Manifest.parse(json.dumps(content).encode(), RUN))
    assert datetime.now(timezone.utc)
