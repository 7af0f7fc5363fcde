"""Code of the user's that raises inside ours: logging handlers, filters, a closed stdout. It ends no thread of ours."""

from __future__ import annotations

import io
import logging
import sys
import threading

import pytest
from metadata_server import metadata_server
from models import fit, model

from remote_ckpt import PreemptionGuard, RemoteModelCheckpoint
from remote_ckpt.errors import AccessDeniedError, DrainError, SaveFailedError, TransientError
from remote_ckpt.location import Location
from remote_ckpt.manifest import Committer
from remote_ckpt.saving.spool import Spool
from remote_ckpt.saving.writer import SeriesOptions, Writer
from remote_ckpt.stores.local import LocalStore
from remote_ckpt.testing.faulty import FaultyStore, Refuse, nothing_wrong
from remote_ckpt.testing.memory import MemoryStore
from remote_ckpt.threads import keep_at

PLACE = Location.parse("memory-store://run").with_template("w-{epoch:02d}.weights.h5")
LOGGER = logging.getLogger("remote_ckpt")


class Raising(logging.Handler):
    """A handler that raises, and lets each of its attempts be waited for."""

    def __init__(self, error):
        super().__init__()
        self.error, self.called = error, threading.Event()

    def emit(self, record):
        self.called.set()
        raise self.error


@pytest.fixture(params=[ValueError("a bug in the handler"), SystemExit(1)], ids=["error", "exit"])
def handler(request):
    raising = Raising(request.param)
    LOGGER.addHandler(raising)
    yield raising
    LOGGER.removeHandler(raising)


def opened(tmp_path, **options):
    store = FaultyStore(MemoryStore())
    writer = Writer(PLACE, store, SeriesOptions(), spool=Spool(PLACE, tmp_path / "spool"), **options)
    writer.open()
    return store, writer


def committed(store):
    return [record.epoch for record in Committer(store, PLACE).load().of(PLACE.template).checkpoints]


def test_a_handler_that_raises_does_not_end_the_publisher(handler, tmp_path):
    """It tells of a failed upload; the upload is tried again, and those behind it."""
    store, writer = opened(tmp_path)
    store.plan = lambda call: Refuse(TransientError) if call.verb == "upload" else None
    writer.save(model(), epoch=0)
    with pytest.raises(DrainError):
        writer.flush()
    assert handler.called.is_set()
    store.plan = nothing_wrong
    writer.save(model(), epoch=1)
    writer.close()
    assert committed(store) == [0, 1]


def test_a_handler_that_raises_does_not_end_the_sealer(handler, tmp_path, monkeypatch):
    """It tells of a snapshot that could not be written; the next one is written."""
    store, writer = opened(tmp_path)
    monkeypatch.setattr(Spool, "seal", lambda *args, **options: (_ for _ in ()).throw(OSError(5, "broken disk")))
    writer.save(model(), epoch=0)
    with pytest.raises(SaveFailedError):
        writer.flush()
    assert handler.called.is_set()
    monkeypatch.undo()
    writer.save(model(), epoch=1)
    writer.close()
    assert committed(store) == [1]


def test_a_layer_that_exits_while_it_is_written_does_not_end_the_sealer(tmp_path, monkeypatch):
    """`SystemExit` would end the thread without a word."""
    store, writer = opened(tmp_path)
    monkeypatch.setattr(Spool, "seal", lambda *args, **options: sys.exit(3))
    writer.save(model(), epoch=0)
    with pytest.raises(SaveFailedError, match="SystemExit: 3"):
        writer.flush()
    monkeypatch.undo()
    writer.save(model(), epoch=1)
    writer.close()
    assert committed(store) == [1]


@pytest.mark.parametrize("error", [BrokenPipeError(), SystemExit(1)])
def test_a_listener_that_raises_does_not_end_the_publisher(tmp_path, error):
    """What it was to be told of is in the bucket."""

    def listener(_record, _is_best):
        raise error

    store, writer = opened(tmp_path, on_published=listener)
    for epoch in range(2):
        writer.save(model(), epoch=epoch)
    writer.close()
    assert committed(store) == [0, 1]


def test_a_spool_that_keeps_what_should_go_does_not_end_the_sealer(tmp_path, monkeypatch):
    """A disk turns read-only while a better checkpoint takes a waiting one's place."""
    store = FaultyStore(MemoryStore())
    options = SeriesOptions(save_best_only=True)
    writer = Writer(PLACE, store, options, spool=Spool(PLACE, tmp_path / "spool"))
    writer.open()
    store.plan = lambda call: Refuse(TransientError) if call.verb == "upload" else None
    monkeypatch.setattr(
        "remote_ckpt.saving.spool.SpoolEntry.drop", lambda entry: (_ for _ in ()).throw(OSError(30, "read-only"))
    )
    for epoch, loss in enumerate([0.5, 0.4]):
        writer.save(model(), epoch=epoch, logs={"val_loss": loss})
        with pytest.raises(DrainError):
            writer.flush()
    monkeypatch.undo()
    store.plan = nothing_wrong
    writer.close()
    assert committed(store) == [1]


def test_a_message_that_no_handler_took_is_printed(handler, capsys):
    """It must not be lost with the handler."""
    if isinstance(handler.error, SystemExit):
        pytest.skip("who exits is let go, on a thread of the user's own")
    LOGGER.warning("%d checkpoints are lost", 3)
    assert "3 checkpoints are lost (a logging handler failed: ValueError" in capsys.readouterr().err


def test_a_filter_that_raises_is_no_better(capsys):
    """Filters are the user's code as well."""

    def broken(record):
        raise KeyError("user_id")

    LOGGER.addFilter(broken)
    try:
        LOGGER.warning("something is lost")
    finally:
        LOGGER.removeFilter(broken)
    assert "something is lost" in capsys.readouterr().err


def test_a_record_names_who_logged_it(caplog):
    """Not the code that guards the handlers."""
    LOGGER.warning("here")
    assert caplog.records[-1].filename == "test_handlers.py"


def test_a_handler_that_raises_does_not_end_training(tmp_path, monkeypatch):
    """Under "warn" nothing that goes wrong in saving does, telling of it included."""
    raising = Raising(ValueError("a bug in the handler"))
    LOGGER.addHandler(raising)
    monkeypatch.setattr(LocalStore, "read", lambda *args, **options: (_ for _ in ()).throw(AccessDeniedError("no")))
    try:
        saving = RemoteModelCheckpoint(str(tmp_path / "run/w-{epoch}.weights.h5"), spool_dir=tmp_path / "spool")
        history = fit(model(), [saving], epochs=2)
    finally:
        LOGGER.removeHandler(raising)
    assert raising.called.is_set()
    assert history.epoch == [0, 1]


def test_a_closed_stdout_does_not_end_training(tmp_path, monkeypatch):
    """A notebook that was disconnected, or a pipe that nobody reads; the messages are lost, the checkpoints are not."""
    closed = io.StringIO()
    closed.close()
    saving = RemoteModelCheckpoint(str(tmp_path / "run/w-{epoch}.weights.h5"), verbose=1)
    made = model()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        history = fit(made, [saving], epochs=2)
    assert history.epoch == [0, 1]
    assert len(saving.run.checkpoints) == 2


def test_a_handler_that_raises_does_not_end_the_listening_for_notices(handler):
    """It tells that one cloud does not answer; the other's notice is heard all the same."""
    LOGGER.setLevel(logging.DEBUG)
    with metadata_server() as server:
        guard = PreemptionGuard(ec2=server.url, gce=f"{server.url}/nobody", signals=(), poll=0.01)
        user = threading.Event()  # anything that can be referred to weakly
        guard.start(user)
        try:
            assert handler.called.wait(30)
            server.interrupt()
            while guard.notice is None:
                assert [thread for thread in threading.enumerate() if thread.name == "remote_ckpt-preemption"]
                threading.Event().wait(0.01)
        finally:
            guard.stop(user)
            LOGGER.setLevel(logging.NOTSET)
    assert guard.notice.source.startswith("EC2")


def test_a_thread_goes_on_after_whatever_its_work_raises(caplog):
    """And tells of it."""
    steps = iter([ValueError("one"), SystemExit("two"), KeyboardInterrupt("three")])

    def step():
        error = next(steps, None)
        if error is None:
            return False
        raise error

    thread = keep_at(step, "test", pause=0.0)
    thread.join(30)
    assert not thread.is_alive()
    assert [word in caplog.text for word in ("one", "two", "three")] == [True] * 3
