"""What a newcomer gets wrong on a real server: told in a sentence that helps, training goes on, nothing is lost."""

from __future__ import annotations

import pytest
from models import Scores, fit, model

from remote_ckpt import RemoteModelCheckpoint, Run, Transfer, load_best
from remote_ckpt.errors import AccessDeniedError, BucketNotFoundError, NoCredentialsError, StoreError, TransientError

WRONG = {
    "missing bucket": (BucketNotFoundError, "bucket does not exist. Create it, or correct its name"),
    "wrong secret": (AccessDeniedError, "access key or its secret is wrong"),
    "unknown key": (AccessDeniedError, "access key or its secret is wrong"),
    "no credentials": (NoCredentialsError, "Set AWS_ACCESS_KEY_ID"),
    "dead endpoint": (TransientError, "cannot be reached"),
}


def spoilt(server, prefix, how):
    """Return a URL and options that are wrong in one way."""
    url, options = server.url(prefix), dict(server.storage_options)
    if how == "missing bucket":
        url = f"s3://nosuchbucket-{prefix[-8:]}/run"
    elif how == "wrong secret":
        options["secret"] = "wrong"
    elif how == "unknown key":
        options["key"] = "unknown"
    elif how == "no credentials":
        del options["key"], options["secret"]
    elif how == "dead endpoint":
        options["endpoint_url"] = "http://127.0.0.1:9"
    return url, options


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
@pytest.mark.parametrize("how", WRONG)
def test_a_reader_is_told_what_to_do(server, prefix, how):
    """Never "no checkpoint yet"."""
    url, options = spoilt(server, prefix, how)
    kind, advice = WRONG[how]
    with pytest.raises(kind, match=advice) as caught:
        Run(url, storage_options=options, transfer=Transfer(deadline=1)).best  # noqa: B018
    assert url in str(caught.value)
    secret = server.storage_options["secret"]
    assert secret not in str(caught.value)


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
@pytest.mark.parametrize("how", ["missing bucket", "wrong secret", "dead endpoint"])
def test_training_goes_on_and_the_spool_keeps_everything(server, prefix, how, caplog):
    """Put right later, all of it is uploaded."""
    url, options = spoilt(server, prefix, how)
    callback = RemoteModelCheckpoint(
        f"{url}/w-{{epoch}}.weights.h5", storage_options=options, transfer=Transfer(deadline=1)
    )
    assert fit(model(), [callback], epochs=2).epoch == [0, 1]
    assert "Training goes on" in caplog.text
    assert WRONG[how][1] in caplog.text
    assert f"remote-ckpt recover {url}" in caplog.text
    assert len(callback.run.pending()) == 2
    assert server.storage_options["secret"] not in caplog.text + repr(callback.run) + repr(callback.stats)


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_resume_never_takes_forbidden_for_nothing_there(server, prefix):
    """Training anew over a run that cannot be read would be the worst answer."""
    url, options = spoilt(server, prefix, "wrong secret")
    with pytest.raises(StoreError):
        fit(model(), [RemoteModelCheckpoint(f"{url}/w.weights.h5", storage_options=options, resume="latest")], epochs=1)


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_a_read_only_bucket_can_be_read_and_says_what_it_lacks(server, prefix, caplog):
    """The identity may read and list, nothing else."""
    url, options = server.url(prefix), server.storage_options
    settings = {"monitor": "val_score", "mode": "max"}
    path = f"{url}/w-{{epoch}}.weights.h5"
    fit(model(), [Scores(0.1), RemoteModelCheckpoint(path, **settings, storage_options=options)], epochs=1)
    reader = {**options, "key": "reader", "secret": "reader-secret"}
    assert load_best(model(), url, storage_options=reader).score == 0.1
    fit(model(), [Scores(0.2), RemoteModelCheckpoint(path, **settings, storage_options=reader)], epochs=1)
    assert "s3:PutObject" in caplog.text
    assert Run(url, storage_options=options).best.score == 0.1
