"""The callback in a real `fit`: what Keras does, and the Keras bugs that are absent."""

from __future__ import annotations

import math
import threading

import keras
import numpy as np
import pytest
from models import Scores, data, fit, model

from remote_ckpt import NoCheckpointError, RemoteModelCheckpoint, Run, load_best, load_latest
from remote_ckpt.errors import LocationError, ManifestError, SaveFailedError, TemplateError
from remote_ckpt.stores.local import LocalStore

NAMED = "w-{epoch:02d}-{val_score:.2f}.weights.h5"


def checkpoint(url, **options):
    settings = {"monitor": "val_score", "mode": "max", "save_best_only": True, "spool_dir": None}
    return RemoteModelCheckpoint(url, **{**settings, **options})


def weights_equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def test_messages_are_those_of_keras(tmp_path, capsys):
    """With the first best as None, five decimals, and the URL."""
    url = str(tmp_path / NAMED)
    fit(model(), [Scores(0.5, 0.25, 0.75), checkpoint(url, verbose=1)])
    out = capsys.readouterr().out
    first, last = url.format(epoch=1, val_score=0.5), url.format(epoch=3, val_score=0.75)
    assert f"\nEpoch 1: val_score improved from None to 0.50000, saving model to {first}\n" in out
    assert f"\nEpoch 1: finished saving model to {first}\n" in out
    assert "\nEpoch 2: val_score did not improve from 0.50000\n" in out
    assert f"\nEpoch 3: val_score improved from 0.50000 to 0.75000, saving model to {last}\n" in out


def test_the_best_is_remembered_across_restarts(tmp_path):
    """A worse model never replaces it."""
    url = str(tmp_path / NAMED)
    fit(model(), [Scores(0.9), checkpoint(url)], epochs=1)
    again = checkpoint(url)
    fit(model(), [Scores(0.5, 0.95), again], epochs=2)
    assert [record.score for record in Run(url).checkpoints] == [0.9, 0.95]
    assert again.best == 0.95


def test_nan_in_the_first_epoch_does_not_freeze_the_best(tmp_path):
    """With Keras, nothing is ever saved after it."""
    url = str(tmp_path / NAMED)
    fit(model(), [Scores(math.nan, 0.5, math.nan), checkpoint(url)])
    assert [record.score for record in Run(url).checkpoints] == [0.5]


def test_an_integer_save_freq_works_with_save_best_only(tmp_path):
    """Keras raises TypeError at the second save."""
    callback = RemoteModelCheckpoint(
        str(tmp_path / "b-{epoch}-{batch}.weights.h5"), monitor="loss", save_best_only=True, save_freq=2
    )
    fit(model(), [callback], epochs=4)
    assert Run(str(tmp_path)).checkpoints


@pytest.mark.parametrize("wrong", [True, 0, -1, 1.5, "batch"])
def test_a_save_freq_that_means_nothing_is_refused(tmp_path, wrong):
    """Keras accepts True and 0."""
    with pytest.raises(ValueError, match="save_freq"):
        RemoteModelCheckpoint(str(tmp_path / "a.keras"), save_freq=wrong)


@pytest.mark.parametrize("metric", ["AUC", "Precision"])
def test_mode_auto_knows_metrics_that_keras_does_not(tmp_path, metric):
    """`val_auc` raises in Keras."""
    made = model()
    made.compile("adam", "binary_crossentropy", metrics=[getattr(keras.metrics, metric)(name=metric.lower())])
    url = str(tmp_path / "w-{epoch:02d}.weights.h5")
    fit(made, [RemoteModelCheckpoint(url, monitor=f"val_{metric.lower()}", save_best_only=True)], epochs=1)
    assert next(iter(Run(url).series.values())).mode == "max"


def test_the_best_does_not_advance_when_saving_fails(tmp_path, monkeypatch):
    """The next worse model that still beats the bucket is saved."""
    url = str(tmp_path / NAMED)
    callback = checkpoint(url)
    real = LocalStore.upload

    def broken(self, key, *args, **options):
        if "0.90" in key:
            raise PermissionError(13, "no")
        return real(self, key, *args, **options)

    monkeypatch.setattr(LocalStore, "upload", broken)

    class Wait(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch:
                with pytest.raises(TimeoutError):
                    callback.flush()

    fit(model(), [Wait(), Scores(0.9, 0.5), callback], epochs=2)
    assert callback.stats.failures
    monkeypatch.undo()
    callback.flush()
    assert {record.score for record in Run(url).checkpoints} == {0.9, 0.5}
    assert Run(url).best.score == 0.9


def test_a_failure_is_raised_when_asked_for(tmp_path, monkeypatch):
    """`on_error="raise"` ends training."""
    monkeypatch.setattr(LocalStore, "upload", lambda *args, **options: (_ for _ in ()).throw(PermissionError(13, "no")))
    callback = checkpoint(str(tmp_path / NAMED), on_error="raise")
    with pytest.raises((SaveFailedError, TimeoutError)) as caught:
        fit(model(), [Scores(*(i / 100 for i in range(50))), callback], epochs=50)
    assert "no" in str(caught.value)
    monkeypatch.undo()
    callback.close()
    assert Run(str(tmp_path)).best is not None


def test_the_tutorial_restores_on_another_machine(tmp_path):
    """Weights, and the optimizer that Keras would silently leave out."""
    url = str(tmp_path / "run" / NAMED)
    trained = model()
    fit(trained, [Scores(0.1, 0.2, 0.3), checkpoint(url)])
    fresh = model(seed=2)
    found = load_best(fresh, str(tmp_path / "run"), cache_dir=tmp_path / "other")
    assert found.epoch == 2
    assert weights_equal(fresh, trained)
    assert int(fresh.optimizer.iterations) == int(trained.optimizer.iterations) > 0
    assert all(
        np.array_equal(a, b) for a, b in zip(fresh.optimizer.variables, trained.optimizer.variables, strict=True)
    )


def test_the_object_is_what_keras_writes_byte_for_byte(tmp_path):
    """`aws s3 cp` and `load_weights` are enough."""
    trained = model()
    fit(trained, [RemoteModelCheckpoint(str(tmp_path / "w-{epoch:02d}.weights.h5"))], epochs=2)
    trained.save_weights(tmp_path / "keras.weights.h5")
    assert (tmp_path / "w-02.weights.h5").read_bytes() == (tmp_path / "keras.weights.h5").read_bytes()


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_every_format_of_keras_is_kept(tmp_path, suffix):
    """Under a fixed name, it holds what Keras would hold."""
    trained = model()
    url = str(tmp_path / f"model{suffix}")
    fit(trained, [RemoteModelCheckpoint(url)], epochs=2)
    if suffix != ".weights.h5":
        assert weights_equal(keras.models.load_model(url), trained)
    fresh = model(seed=2)
    load_latest(fresh, url)
    assert weights_equal(fresh, trained)


@pytest.mark.parametrize("which", ["latest", "best"])
def test_resume_goes_on_where_training_stopped(tmp_path, which):
    """Model, optimizer, epoch and the score to beat."""
    url = str(tmp_path / "w-{epoch:02d}.weights.h5")
    fit(model(), [Scores(0.5, 0.9, 0.7), checkpoint(url, save_best_only=False)])
    again, resumed = model(seed=2), checkpoint(url, save_best_only=False, resume=which)
    history = fit(again, [Scores(*[0.1] * 5), resumed], epochs=5)
    start = 3 if which == "latest" else 2
    assert resumed.resumed_from.epoch == start - 1
    assert history.epoch == list(range(start, 5))
    assert resumed.best == 0.9


def test_resume_counts_what_still_waits_in_the_spool(tmp_path, monkeypatch):
    """The process before was killed after it had sealed its last epoch, and before the upload."""
    url, spool = str(tmp_path / "run/w-{epoch:02d}.weights.h5"), tmp_path / "spool"
    fit(model(), [RemoteModelCheckpoint(url, spool_dir=spool)], epochs=1)
    monkeypatch.setattr(LocalStore, "upload", lambda *args, **options: (_ for _ in ()).throw(PermissionError(13, "no")))
    killed = RemoteModelCheckpoint(url, spool_dir=spool, resume="latest")
    fit(model(), [killed], epochs=3)
    assert len(killed.run.pending()) == 2
    killed._writer._pipeline.stop()
    killed._writer._spool._own.lock.release()  # as the kernel does when a process dies
    monkeypatch.undo()
    again = RemoteModelCheckpoint(url, spool_dir=spool, resume="latest")
    history = fit(model(), [again], epochs=5)
    assert again.resumed_from.epoch == 2
    assert history.epoch == [3, 4]
    assert [record.epoch for record in again.run.checkpoints] == [0, 1, 2, 3, 4]


def test_resume_with_nothing_there_starts_anew(tmp_path):
    """A new run needs no special case."""
    history = fit(
        model(), [checkpoint(str(tmp_path / NAMED), resume="latest", monitor="val_loss", mode="min")], epochs=0
    )
    assert history.epoch == []


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    """Same weights after six epochs as after three and three."""
    x, y = data()
    whole = model()
    whole.fit(x, y, epochs=6, shuffle=False, verbose=0)
    url = str(tmp_path / "w-{epoch:02d}.weights.h5")
    model_a, model_b = model(), model(seed=2)
    model_a.fit(x, y, epochs=3, shuffle=False, verbose=0, callbacks=[RemoteModelCheckpoint(url)])
    model_b.fit(x, y, epochs=6, shuffle=False, verbose=0, callbacks=[RemoteModelCheckpoint(url, resume="latest")])
    assert weights_equal(whole, model_b)


def test_retention_keeps_the_best_and_the_latest(tmp_path):
    """And deletes the others' objects."""
    url = str(tmp_path / NAMED)
    scores = (0.1, 0.9, 0.8, 0.2, 0.3)
    fit(model(), [Scores(*scores), checkpoint(url, save_best_only=False, keep_best=2, keep_last=1)], epochs=5)
    assert [record.epoch for record in Run(url).checkpoints] == [1, 2, 4]
    assert len(list(tmp_path.glob("*.h5"))) == 3


def test_a_custom_loop_uses_the_same_writer(tmp_path):
    """Without callback and `fit`."""
    made = model()
    with Run(str(tmp_path)).writer("w-{epoch:02d}.weights.h5", monitor="score", mode="max", save_best_only=True) as w:
        assert [w.save(made, epoch=i, logs={"score": s}) for i, s in enumerate((0.5, 0.4, 0.6))] == [True, False, True]
    assert Run(str(tmp_path)).best.epoch == 2


def test_an_unknown_field_is_told_as_keras_tells_it(tmp_path):
    """With the fields that there are."""
    with pytest.raises(KeyError, match=r"Known fields: .*accuracy") as caught:
        fit(model(), [checkpoint(str(tmp_path / "w-{nonsense:.2f}.weights.h5"), save_best_only=False)])
    assert isinstance(caught.value, TemplateError)


def test_a_metric_that_is_never_logged_is_warned_about(tmp_path):
    """With the metrics that there are; saved all the same, as Keras does."""
    with pytest.warns(UserWarning, match="Can save best model only with nonsense available.*val_loss"):
        fit(model(), [checkpoint(str(tmp_path / "w-{epoch}.weights.h5"), monitor="nonsense")], epochs=1)
    assert len(Run(str(tmp_path)).checkpoints) == 1


def test_bad_arguments_are_refused_before_training(tmp_path):
    """Each with what to write instead."""
    for wrong, options in [
        ("nosuch://bucket/w.keras", {}),
        ("s3://", {}),
        (str(tmp_path), {}),
        (str(tmp_path / "w.weights.h5"), {"save_weights_only": False}),
        (str(tmp_path / "w.keras"), {"resume": "newest"}),
        (str(tmp_path / "w.keras"), {"on_error": "ignore"}),
    ]:
        with pytest.raises((LocationError, ValueError)):
            fit(model(), [RemoteModelCheckpoint(wrong, **options)], epochs=1)


def test_a_broken_manifest_is_told_and_training_goes_on(tmp_path, caplog):
    """Nothing is overwritten, and everything is uploaded once it has been moved away."""
    (tmp_path / "run").mkdir()
    manifest = tmp_path / "run/manifest.json"
    manifest.write_bytes(b"not json")
    callback = checkpoint(str(tmp_path / "run" / NAMED))
    fit(model(), [Scores(0.1, 0.2), callback], epochs=2)
    assert "not JSON" in caplog.text
    assert manifest.read_bytes() == b"not json"
    with pytest.raises(ManifestError):
        load_best(model(), str(tmp_path / "run"))
    manifest.unlink()
    callback.flush()
    assert Run(str(tmp_path / "run")).best.score == 0.2


def test_an_empty_run_says_so(tmp_path):
    """It is a LookupError."""
    with pytest.raises(NoCheckpointError, match="holds no checkpoint"):
        load_best(model(), str(tmp_path))


def test_many_fits_leave_no_threads_and_no_spool_behind(tmp_path):
    """A hyperparameter sweep runs hundreds in one process."""
    callback = checkpoint(str(tmp_path / "run" / NAMED), save_best_only=False)
    before = set(threading.enumerate())
    for _ in range(3):
        fit(model(), [Scores(0.5), callback], epochs=1)
    assert callback.stats.saves == 3
    assert len(callback.run.checkpoints) == 3
    assert not {t.name for t in set(threading.enumerate()) - before if t.name.startswith("remote_ckpt-")}
    assert not [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]
