"""Copies and pickles: of the callback, as KerasTuner makes them, and of what a user may hold beside it."""

from __future__ import annotations

import copy
import inspect
import pickle
import threading

import keras
import pytest
from models import fit, model
from records import checkpoint

from remote_ckpt import PreemptionGuard, RemoteModelCheckpoint, Run, Transfer, errors

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda made: pickle.loads(pickle.dumps(made)),
}


@pytest.fixture(scope="module")
def made():
    """One model for all: what is copied must not depend on it."""
    return model()


@pytest.fixture(params=COPIES.values(), ids=COPIES)
def copied(request):
    return request.param


def guard():
    return PreemptionGuard(ec2=False, gce=False, grace=7)


def saving(folder, **options):
    return RemoteModelCheckpoint(str(folder / "w-{epoch:02d}.weights.h5"), **options)


@pytest.mark.parametrize("fitted", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("guarded", [False, True], ids=["alone", "guarded"])
def test_a_copied_callback_trains_by_itself(tmp_path, copied, fitted, guarded, made):
    """Before and after a training of the original, with a guard and without; both work afterwards."""
    first = saving(tmp_path / "run", preemption=guard() if guarded else None)
    if fitted:
        fit(made, [first], epochs=1)
    other = copied(first)
    for number, one in enumerate([other, first], start=1 + fitted):
        fit(made, [one], epochs=1)
        assert len(one.run.checkpoints) == number
    assert other.stats.saves == 1
    assert first.stats.saves == 1 + fitted


def test_a_copy_made_while_the_original_trains_trains_by_itself(tmp_path, copied, made):
    """With threads, locks and a model in use."""
    first, copies = saving(tmp_path / "run", preemption=guard()), []
    copying = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: copies.append(copied(first)))
    fit(made, [first, copying], epochs=1)
    fit(made, copies, epochs=1)
    assert len(first.run.checkpoints) == 2


def test_a_copy_has_the_settings(tmp_path, copied):
    """All of them, also what was changed after it was made."""
    first = saving(
        tmp_path,
        monitor="val_accuracy",
        mode="max",
        save_best_only=True,
        save_freq=3,
        initial_value_threshold=0.25,
        resume="best",
        keep_best=2,
        keep_last=5,
        on_error="raise",
        spool_dir=tmp_path / "spool",
        spool_limit=1 << 20,
        transfer=Transfer(part_size=8 << 20),
        storage_options={"auto_mkdir": True},
        tensorboard=tmp_path / "board",
        preemption=guard(),
    )
    first.verbose = 1
    other = copied(first)
    names = ("monitor", "mode", "save_best_only", "save_freq", "best", "_resume", "_keep", "_on_error", "_spool")
    for name in (*names, "verbose", "filepath"):
        assert getattr(other, name) == getattr(first, name), name
    assert (other.run.url, other.run.transfer) == (first.run.url, first.run.transfer)
    assert other.run._storage_options == {"auto_mkdir": True}
    assert other._departure.guard.grace == 7


def test_a_copy_holds_no_model(tmp_path, copied, made):
    """It would be copied with it, optimizer and all."""
    first = saving(tmp_path / "run")
    fit(made, [first], epochs=1)
    assert copied(first).model is None


def test_riders_that_are_copied_with_the_callback_are_the_copys_riders(tmp_path, copied, made):
    """As KerasTuner copies the whole list: the fit of the copies finds them among its callbacks."""
    if copied is copy.copy:
        pytest.skip("a shallow copy of a list copies nothing in it")
    stopping = keras.callbacks.EarlyStopping("loss", patience=5)
    stopping_too, other = copied([stopping, saving(tmp_path / "run", riders=[stopping], resume="latest")])
    fit(made, [stopping_too, other], epochs=1)
    assert list(other.run.latest.riders) == ["EarlyStopping"]
    assert stopping_too is not stopping


def test_a_guard_shared_by_two_callbacks_is_shared_by_their_copies(tmp_path):
    """Or the one would raise the signal again while the other still uploads."""
    shared = guard()
    callbacks = [saving(tmp_path / name, preemption=shared) for name in "ab"]
    one, other = copy.deepcopy(callbacks)
    assert one._departure.guard is other._departure.guard is not shared


def test_what_a_subclass_adds_is_copied(tmp_path, copied):
    """Its attributes are its own business."""
    first = Named(str(tmp_path / "w-{epoch}.weights.h5"), label="mine")
    assert copied(first).label == "mine"


class Named(RemoteModelCheckpoint):
    """A subclass with something of its own."""

    def __init__(self, *arguments, label, **options):
        super().__init__(*arguments, **options)
        self.label = label


def test_a_run_is_copied_without_its_open_store(tmp_path, copied):
    """The copy opens its own."""
    run = Run(str(tmp_path / "run"), spool_dir=tmp_path / "spool", cache_dir=tmp_path / "cache")
    with run.writer("w-{epoch}.weights.h5") as writer:
        writer.save(model(), epoch=0)
    other = copied(run)
    assert other.store is not run.store
    assert [record.key for record in other.checkpoints] == ["w-1.weights.h5"]


def test_options_that_cannot_be_copied_do_not_keep_a_callback_from_it(tmp_path):
    """A session with a lock inside, say: the copy uses the same."""
    options = {"session": threading.Lock()}
    other = copy.deepcopy(saving(tmp_path, storage_options=options))
    assert other.run._storage_options["session"] is options["session"]


def test_a_writer_says_that_it_cannot_be_copied(tmp_path, copied):
    """It has threads and locks; the error names what can be."""
    with (
        Run(str(tmp_path / "run")).writer("w-{epoch}.weights.h5") as writer,
        pytest.raises(errors.CopyError, match="Copy the Run") as caught,
    ):
        copied(writer)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("value", [checkpoint(3), Transfer(concurrency=2)], ids=["checkpoint", "transfer"])
def test_plain_values_are_equal_to_their_copies(value, copied):
    """They hold nothing but facts."""
    assert copied(value) == value


def test_a_signing_key_stays_in_a_copy_and_out_of_a_pickle(tmp_path, monkeypatch):
    """A pickle lies about on disks; who reads it finds the key in the environment."""
    first = saving(tmp_path, signing_key=b"0123456789abcdef")
    assert copy.deepcopy(first).run.signer is first.run.signer
    monkeypatch.setenv("REMOTE_CKPT_SIGNING_KEY", "0123456789abcdef")
    data = pickle.dumps(first)
    assert b"0123456789abcdef" not in data
    assert pickle.loads(data).run.signer.has_key


@pytest.mark.parametrize("kind", [kind for _, kind in inspect.getmembers(errors, inspect.isclass)])
def test_an_error_survives_a_pickle(kind):
    """As it crosses from a worker process to its parent: class and message."""
    other = pickle.loads(pickle.dumps(kind("it failed")))
    assert (type(other), str(other)) == (kind, "it failed")
