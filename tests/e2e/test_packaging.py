"""What is published: a wheel and an sdist, installed where the checkout cannot be seen."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from processes import finish

ROOT = Path(__file__).parents[2]
TYPED = ROOT / "tests" / "typed"
UNIT_TESTS = ["location", "policy", "plain", "checkpoint", "spool", "segments", "errors", "cli", "page", "weights_file"]
"""Those of tests/unit that are quick; `scripts/compatibility` runs them all."""

pytestmark = pytest.mark.slow


def build(source: Path, *kinds: str) -> list[Path]:
    """Build what is published from `source`, as `pip` does, with the build backend that is installed here."""
    target = source / "dist"
    arguments = [argument for kind in kinds for argument in ("-t", kind)]
    done = finish([sys.executable, "-m", "hatchling", "build", *arguments, "-d", target], cwd=source)
    assert done.returncode == 0, done.stderr
    return [next(target.glob({"wheel": "*.whl", "sdist": "*.tar.gz"}[kind])) for kind in kinds]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The wheel, and the folder that the sdist unpacks to; built from what git would commit here."""
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    wheel, sdist = build(source, "wheel", "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(source / "unpacked", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return wheel, next((source / "unpacked").iterdir())


@pytest.fixture(scope="module")
def installed(published, tmp_path_factory):
    """A Python that has the wheel and what it depends on, and none of the checkout."""
    home = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    site = next((home / "lib").glob("python*/site-packages"))
    # The dependencies are these; `.pth` files are not followed from here, so the editable checkout is not seen.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", published[0]]
    done = finish(command, env={"PIP_NO_INDEX": "1"})
    assert done.returncode == 0, done.stderr
    return python


def contents(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def test_the_wheel_holds_the_package_and_nothing_else(published):
    ours = {f"remote_ckpt/{path.relative_to(ROOT / 'remote_ckpt')}" for path in (ROOT / "remote_ckpt").rglob("*.py")}
    found = {name for name in contents(published[0]) if ".dist-info/" not in name}
    assert found == ours | {"remote_ckpt/py.typed", "remote_ckpt/cli/data/pima-indians-diabetes.csv"}


def test_the_sdist_builds_the_same_wheel(published):
    wheel, unpacked = published
    (again,) = build(unpacked, "wheel")
    assert contents(again) == contents(wheel)


def test_what_the_page_of_the_package_says(published):
    """Its description is the README; a reader of it must find the licence, and how to start."""
    with zipfile.ZipFile(published[0]) as archive:
        info = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(info).decode()
    assert "License-Expression: Apache-2.0" in text
    assert "from remote_ckpt import RemoteModelCheckpoint" in text


def test_the_unit_tests_pass_on_what_is_installed(published, installed, tmp_path):
    """From the sdist, beside which no package lies."""
    tests = shutil.copytree(published[1] / "tests", tmp_path / "tests")
    shutil.copy(published[1] / "pyproject.toml", tmp_path)
    shutil.copytree(published[1] / "examples", tmp_path / "examples")
    files = [str(tests / "unit" / f"test_{name}.py") for name in UNIT_TESTS]
    done = finish([installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files], cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"\d{3} passed", done.stdout)


def test_the_command_is_installed(installed, tmp_path):
    command = installed.with_name("remote-ckpt")
    done = finish([command, "--help"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    where = finish([installed, "-c", "import remote_ckpt; print(remote_ckpt.__file__)"], cwd=tmp_path)
    assert Path(where.stdout.strip()).is_relative_to(installed.parents[1])


def check_types(installed, file, tmp_path):
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed, "--config-file", os.devnull]
    return finish([*command, "--cache-dir", tmp_path / "mypy", shutil.copy(TYPED / file, tmp_path)], cwd=tmp_path)


def test_a_users_program_is_checked_against_our_types(installed, tmp_path):
    done = check_types(installed, "right_use.py", tmp_path)
    assert done.returncode == 0, done.stdout


def test_a_type_checker_finds_a_users_mistakes(installed, tmp_path):
    done = check_types(installed, "wrong_use.py", tmp_path)
    lines = (TYPED / "wrong_use.py").read_text().splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert {int(number) for number in re.findall(r"wrong_use\.py:(\d+): error", done.stdout)} == expected, done.stdout
