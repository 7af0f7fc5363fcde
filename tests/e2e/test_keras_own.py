"""Keras's own tests of `ModelCheckpoint`, from the installed wheel, with our class in its place."""

from __future__ import annotations

import pytest

pytest.importorskip("keras")
from keras.src import callbacks
from keras.src.callbacks import model_checkpoint_test as keras_own

from remote_ckpt import RemoteModelCheckpoint


class TestInPlaceOfModelCheckpoint(keras_own.ModelCheckpointTest):
    """Every test that Keras has for its class."""

    @pytest.fixture(autouse=True)
    def ours_in_place_of_keras(self, monkeypatch):
        monkeypatch.setattr(callbacks, "ModelCheckpoint", RemoteModelCheckpoint)


def test_the_tests_really_use_our_class(monkeypatch):
    """The patched name is the one that Keras's tests look up."""
    monkeypatch.setattr(callbacks, "ModelCheckpoint", RemoteModelCheckpoint)
    assert keras_own.callbacks.ModelCheckpoint is RemoteModelCheckpoint
    assert {"test_model_checkpoint_options", "test_model_checkpoint_loading"} <= set(dir(TestInPlaceOfModelCheckpoint))
