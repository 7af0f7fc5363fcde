"""The tests that the documentation names as the keepers of its promises are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def named():
    """Each test that the page names, with its file: `file.py::test_a`, and `::test_b` for another of the same file."""
    file = None
    for match in re.finditer(r"`((?:test_)?\w+\.py)?::(test_\w+)`", (ROOT / "docs" / "guarantees.md").read_text()):
        file = match[1] or file
        yield file, match[2]


def test_every_test_that_is_named_exists():
    """A promise whose test was renamed would look kept."""
    texts = {path.name: path.read_text() for place in ("tests", "remote_ckpt") for path in (ROOT / place).rglob("*.py")}
    pairs = list(named())
    assert len(pairs) > 70
    assert [f"{file}::{name}" for file, name in pairs if f"def {name}(" not in texts.get(file, "")] == []
