"""Signed manifests: what was not written with the key is not believed, and nobody breaks a signature unawares."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import seal, terms
from typer.testing import CliRunner

from remote_ckpt import Run, load_best
from remote_ckpt.cli._app import app
from remote_ckpt.errors import CorruptCheckpointError, ManifestError, SignatureError
from remote_ckpt.manifest.signing import FIELD, VARIABLE, Signer
from remote_ckpt.saving.spool import Spool

KEY = "a key that nobody guesses"


def save(run: Run, number: int, score: float) -> None:
    """Bring one checkpoint into the run, as a process does that recovers it."""
    spool = Spool(run.location)
    seal(spool, number, score)
    spool.close()
    run.recover()


@pytest.fixture
def folder(tmp_path):
    """A run that was signed."""
    save(Run(tmp_path / "run", signing_key=KEY), 0, 0.5)
    return tmp_path / "run"


def change(folder, edit) -> None:
    """What someone does who may write to the bucket."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def edits(content):
    """The series of `content`, and its record."""
    (series,) = content["series"].values()
    return series, series["checkpoints"][0]


TAMPERING = {
    "a digest": lambda c: edits(c)[1].update(sha256="0" * 64),
    "a key": lambda c: edits(c)[1].update(key="other.weights.h5"),
    "a score": lambda c: edits(c)[1].update(score=0.0),
    "the best": lambda c: edits(c)[0].update(best=None),
    "the revision": lambda c: c.update(revision=99),
    "an unknown field": lambda c: c.update(more=1),
    "no signature": lambda c: c.pop(FIELD),
    "an odd signature": lambda c: c.update({FIELD: {"x": "é"}}),
    "another text": lambda c: c.update({FIELD: "hmac-sha256:é"}),
    "an empty one": lambda c: c.update({FIELD: "hmac-sha256:"}),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_what_was_tampered_with_is_neither_read_nor_rewritten(folder, how):
    """By nobody who has the key."""
    change(folder, TAMPERING[how])
    before = (folder / "manifest.json").read_bytes()
    run = Run(folder, signing_key=KEY)
    for read in (
        lambda: run.best,
        run.manifest,
        lambda: run.pull("best"),
        lambda: load_best(None, folder, signing_key=KEY),
    ):
        with pytest.raises(SignatureError, match=r"manifest\.json") as caught:
            read()
        assert isinstance(caught.value, ManifestError)
        assert KEY not in str(caught.value)
    with pytest.raises(SignatureError):
        save(run, 1, 0.1)
    with pytest.raises(SignatureError):
        run.prune(keep_best=1)
    assert (folder / "manifest.json").read_bytes() == before
    assert len(run.pending()) == 1


def test_another_key_is_refused(folder):
    """Even one that begins alike."""
    with pytest.raises(SignatureError, match="another key"):
        Run(folder, signing_key=KEY + "x").best  # noqa: B018


def test_with_the_key_everything_goes_on(folder):
    """Bytes and text are one key; formatting does not matter."""
    change(folder, lambda content: None)
    run = Run(folder, signing_key=KEY.encode())
    save(run, 1, 0.1)
    assert run.best.id == "id1"
    assert Run(folder, signing_key=KEY).best.id == "id1"


def test_the_key_may_come_from_the_environment(folder, monkeypatch):
    """The argument wins; an empty variable is a mistake, not "no key"."""
    monkeypatch.setenv(VARIABLE, KEY)
    assert Run(folder).best.id == "id0"
    with pytest.raises(SignatureError):
        Run(folder, signing_key="another-key-of-sixteen").best  # noqa: B018
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(SignatureError, match="empty"):
        Run(folder)


def test_without_a_key_a_signed_run_is_read_but_not_written(folder):
    """A writer that lacks the key would break the signature: refused, and the checkpoint stays in the spool."""
    before = (folder / "manifest.json").read_bytes()
    run = Run(folder)
    assert run.pull("best").read_bytes()
    with pytest.raises(SignatureError, match=f"signing_key=…, or set {VARIABLE}"):
        save(run, 1, 0.1)
    assert (folder / "manifest.json").read_bytes() == before
    assert len(run.pending()) == 1
    assert [record.id for record in Run(folder, signing_key=KEY).recover()] == ["id1"]
    with pytest.raises(SignatureError, match="signing_key"):
        run.writer("w-{epoch:02d}.weights.h5")


def test_an_unsigned_run_is_refused_until_somebody_signs_it(tmp_path, monkeypatch):
    """`remote-ckpt sign` is the way to begin, and to change the key."""
    folder = tmp_path / "run"
    save(Run(folder), 0, 0.5)
    with pytest.raises(SignatureError, match="remote-ckpt sign"):
        Run(folder, signing_key=KEY).best  # noqa: B018
    for key in (KEY, "the next one, as long"):
        monkeypatch.setenv(VARIABLE, key)
        assert CliRunner().invoke(app, ["sign", str(folder)]).exit_code == 0
        assert Run(folder).best.id == "id0"
    with pytest.raises(SignatureError):
        Run(folder, signing_key=KEY).best  # noqa: B018


def test_nothing_is_signed_without_a_key_or_a_run(tmp_path, monkeypatch):
    """Told, and nothing is created."""
    assert CliRunner().invoke(app, ["sign", str(tmp_path / "run")]).exit_code == 2
    monkeypatch.setenv(VARIABLE, KEY)
    assert CliRunner().invoke(app, ["sign", str(tmp_path / "run")]).exit_code == 1
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_objects_are_covered_by_their_digests(folder):
    """Another object of the same size under the name is not loaded."""
    run = Run(folder, signing_key=KEY)
    path = folder / run.best.key
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(CorruptCheckpointError):
        run.pull("best")


def test_unknown_fields_survive_and_are_covered(folder):
    """What a newer version wrote is signed again with the rest."""
    signer = Signer.of(KEY)
    path = folder / "manifest.json"
    content = {**json.loads(path.read_text()), "future": {"a": [1.5]}}
    path.write_bytes(signer.sign(json.dumps(content).encode(), "url"))
    save(Run(folder, signing_key=KEY), 1, 0.1)
    assert json.loads(path.read_text())["future"] == {"a": [1.5]}
    change(folder, lambda content: content["future"].update(a=[1.25]))
    with pytest.raises(SignatureError):
        Run(folder, signing_key=KEY).best  # noqa: B018


def test_a_metric_may_be_called_signature(tmp_path):
    """It is no signature."""
    run = Run(tmp_path / "run")
    spool = Spool(run.location)
    seal(spool, 0, 0.5, logs={"signature": 1.0}, rules=terms(monitor="signature"))
    spool.close()
    assert len(run.recover()) == 1
    save(run, 1, 0.1)
    assert len(run.checkpoints) == 2


def test_the_key_is_in_no_representation_and_no_pickle(folder, monkeypatch):
    """Who unpickles finds it in the environment, or is told."""
    run = Run(folder, signing_key=KEY)
    shown = repr(run) + repr(run.signer) + repr(run._committer()) + str(vars(run))
    assert KEY not in shown
    assert copy.deepcopy(run.signer) is run.signer
    pickled = pickle.dumps(run.signer)
    assert KEY.encode() not in pickled
    with pytest.raises(SignatureError, match=VARIABLE):
        pickle.loads(pickled)
    monkeypatch.setenv(VARIABLE, KEY)
    again = pickle.loads(pickled)
    again.verify((folder / "manifest.json").read_bytes(), "url")
    assert not pickle.loads(pickle.dumps(Signer())).has_key


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(st.characters(codec="utf-8")), JSON, max_size=5)


@given(OBJECTS, OBJECTS)
def test_only_what_says_the_same_has_the_same_signature(one, other):
    """Whatever a manifest says, also in fields that nobody knows yet."""
    signer = Signer.of(KEY)
    one.pop(FIELD, None)
    other.pop(FIELD, None)
    signed = signer.sign(json.dumps(one).encode(), "url")
    signer.verify(signed, "url")
    signer.verify(json.dumps(json.loads(signed), sort_keys=True).encode(), "url")
    forged = json.dumps({**other, FIELD: json.loads(signed)[FIELD]}).encode()
    if json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True):
        with pytest.raises(SignatureError):
            signer.verify(forged, "url")


@pytest.mark.parametrize("key", ["secret", b"\x00" * 15, "0123456789abcde"])
def test_a_key_that_can_be_guessed_is_refused(folder, key):
    """The manifest is there to try keys on; the error holds how to make one, and not the key."""
    with pytest.raises(SignatureError, match="openssl rand -hex 32") as caught:
        Run(folder, signing_key=key)
    assert str(key) not in str(caught.value)
