"""What is remembered of a store, and what is no longer believed."""

from __future__ import annotations

import json

import pytest

from remote_ckpt.stores import Capabilities, probe_cache

FOUND = Capabilities(conditional_delete=False, notes=("a note",))


@pytest.fixture(autouse=True)
def forgotten():
    """Nothing is known in this process."""
    probe_cache._known.clear()
    yield
    probe_cache._known.clear()


def test_what_was_found_is_remembered_on_this_machine():
    """The next process does not ask again."""
    probe_cache.remembered("a place", lambda: FOUND)
    probe_cache._known.clear()
    assert probe_cache.remembered("a place", Capabilities) == FOUND


@pytest.mark.parametrize("name", ["conditional_delete", "owners", "create_only"])
def test_what_an_older_version_did_not_look_for_is_not_believed(name):
    """Its silence is no yes: the store is asked again."""
    probe_cache.remembered("a place", lambda: FOUND)
    probe_cache._known.clear()
    file = probe_cache._file("a place")
    text = json.loads(file.read_text())
    del text["found"][name]
    file.write_text(json.dumps(text))
    asked = Capabilities(owners=False)
    assert probe_cache.remembered("a place", lambda: asked) == asked
