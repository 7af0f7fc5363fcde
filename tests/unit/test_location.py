"""Where a run ends and its template begins, and which keys are allowed."""

from pathlib import Path

import pytest

from remote_ckpt.errors import LocationError, TemplateError
from remote_ckpt.location import Location, NameTemplate, redact, validate_key


@pytest.mark.parametrize(
    ("url", "protocol", "run", "template"),
    [
        ("s3://b/runs/w-{epoch:02d}.weights.h5", "s3", "s3://b/runs", "w-{epoch:02d}.weights.h5"),
        ("s3://b/runs/{epoch}/w.keras", "s3", "s3://b/runs", "{epoch}/w.keras"),
        ("gs://b/runs/pima/", "gs", "gs://b/runs/pima", None),
        ("gs://b/best.h5", "gs", "gs://b", "best.h5"),
        ("w.keras", "file", ".", "w.keras"),
        ("runs/w.keras", "file", "runs", "w.keras"),
        ("/w.keras", "file", "/", "w.keras"),
        ("file:///tmp/a/b.keras", "file", "/tmp/a", "b.keras"),
        ("memory://a/{loss:.2f}.keras", "memory", "memory://a", "{loss:.2f}.keras"),
    ],
)
def test_the_run_ends_before_the_first_field(url, protocol, run, template):
    """A URL is a prefix, or a prefix and a template."""
    location = Location.parse(url)
    assert (location.protocol, location.run, location.template) == (protocol, run, template)


@pytest.mark.parametrize("url", ["", "  ", "s3://", "s3:///run", "gs://"])
def test_a_url_without_a_bucket_is_refused(url):
    """The error is a ValueError of our tree."""
    with pytest.raises(LocationError):
        Location.parse(url)


@pytest.mark.parametrize("url", ["s3:/b/run", "GS:b/run", Path("s3://b/run"), "https:/user:secret@host/x"])
def test_a_url_without_its_slashes_is_no_folder(url):
    """Training would save to this machine all night. What follows may hold a password, and is not repeated."""
    with pytest.raises(LocationError, match=r"is no URL: write '\w+://…'") as caught:
        Location.parse(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("path", ["./s3:/b", "/x/s3:/b", "runs:2026/a", "s3x"])
def test_a_folder_may_have_a_colon(path):
    """Where it cannot be taken for a URL."""
    assert Location.parse(path).protocol == "file"


def test_local_runs_do_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    """The root is absolute; what the user wrote is what messages show."""
    monkeypatch.chdir(tmp_path)
    location = Location.parse("runs/w.keras")
    assert location.root == str(tmp_path / "runs")
    assert location.url("w.keras") == "runs/w.keras"


def test_a_password_in_a_url_is_never_shown():
    """Not in the name, not in an object's URL."""
    location = Location.parse("sftp://me:secret@host/run/w.keras")
    assert "secret" not in location.name + location.url("k") + redact("sftp://me:secret@host")
    assert "me:***@host" in location.name


@pytest.mark.parametrize(
    "key",
    [
        *("", "/a.h5", "../a.h5", "a/../b.h5", "a//b.h5", "a\\b.h5", "C:x.h5", "a\nb.h5", "./a.h5", "a/.", "\ud800.h5"),
        *("manifest.json", "a.txt", "a.h5/", "a\x9b2J.h5", "x" * 901 + ".h5"),
    ],
)
def test_keys_that_leave_the_run_are_refused(key):
    """They come from templates, and from manifests nobody vouches for."""
    with pytest.raises(LocationError):
        validate_key(key)


def test_a_template_formats_as_keras_does():
    """Epoch and batch are shown 1-based; every log is a field."""
    template = NameTemplate("w-{epoch:02d}-{batch}-{val_loss:.2f}.weights.h5")
    assert template.format(epoch=4, batch=0, logs={"val_loss": 0.126}) == "w-05-1-0.13.weights.h5"
    assert template.fields == ("epoch", "batch", "val_loss")
    assert template.weights_only


def test_a_metric_that_was_not_logged_is_named_with_those_that_were():
    """It is a KeyError, as with Keras, and prints as a sentence."""
    with pytest.raises(KeyError) as caught:
        NameTemplate("{val_los:.2f}.keras").format(logs={"val_loss": 1.0})
    assert isinstance(caught.value, TemplateError)
    assert "val_los" in str(caught.value)
    assert "Known fields: epoch, val_loss" in str(caught.value)


@pytest.mark.parametrize("text", ["w.txt", "w-{}.keras", "w-{0}.keras", "w-{.keras", "../w.keras"])
def test_a_template_that_can_never_work_is_refused_at_once(text):
    """Before training, not at the first save."""
    with pytest.raises(LocationError):
        NameTemplate(text)


def test_a_metric_named_to_climb_out_is_refused():
    """A value with slashes and dots cannot leave the run."""
    with pytest.raises(LocationError):
        NameTemplate("{name}/w.keras").format(logs={"name": ".."})


LONG = "w" * 300


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/tmp/run", f"{'w' * 240}.weights.h5"),
        ("/tmp/run", "w" * 232 + "-{epoch:02d}-{val_loss:.2f}.weights.h5"),
        ("/tmp/run", "é" * 125 + "{epoch}.keras"),
        ("/tmp/run", f"{LONG}/w-{{epoch}}.keras"),
        ("/tmp/run", "w" * 220 + ".weights.h5"),  # the object behind a fixed name has sixteen more and a dash
        ("s3://bucket/run", "w/" * 440 + "{epoch:06d}.weights.h5"),
        ("s3://bucket/" + "p/" * 200, "w/" * 320 + "{epoch}.keras"),
        ("gs://bucket/run", "w/" * 440 + "w.weights.h5"),
    ],
)
def test_a_name_that_could_not_be_stored_is_refused_at_once(url, name):
    """With what publishing may add to it, in bytes; not by each upload, for ever."""
    with pytest.raises(LocationError, match=r"too long|more than 900 bytes"):
        Location.parse(url).check_template(NameTemplate(name))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/tmp/run", "w" * 230 + "{epoch}.keras"),
        ("/tmp/run", f"{'w' * 250}/{{epoch}}.keras"),
        ("s3://bucket/run", f"{LONG}/{{epoch}}.keras"),
        ("memory://run", "w" * 200 + ".weights.h5"),
    ],
)
def test_a_long_name_that_can_be_stored_is_not_refused(url, name):
    """Buckets have no limit for what lies between two slashes."""
    Location.parse(url).check_template(NameTemplate(name))


@pytest.mark.parametrize("name", ["w-{epoch:zz}.keras", "w-{val_loss:zz}.keras"])
def test_a_field_that_can_never_be_formatted_is_refused_at_once(name):
    """Whatever will be logged."""
    with pytest.raises(LocationError, match="Failed to format"):
        Location.parse("/tmp/run").check_template(NameTemplate(name))


@pytest.mark.parametrize("name", ["w-{step:06d}.keras", "w-{epoch:02d}-{note:s}.keras"])
def test_a_field_that_cannot_be_nan_is_refused_only_where_a_save_may_be_urgent(name):
    """Then nothing was logged yet, and the model must be saved all the same."""
    location = Location.parse("/tmp/run")
    location.check_template(NameTemplate(name))
    with pytest.raises(LocationError, match="Before the machine goes"):
        location.check_template(NameTemplate(name), urgent=True)


@pytest.mark.parametrize("name", ["w-{step}.keras", "w-{epoch:03d}-{batch:04d}-{val_loss:.2f}.keras"])
def test_fields_that_can_be_nan_are_fine_where_a_save_may_be_urgent(name):
    """Epoch and batch are always there."""
    Location.parse("/tmp/run").check_template(NameTemplate(name), urgent=True)


@pytest.mark.parametrize(
    ("template", "key", "can"),
    [
        ("w-{epoch:02d}.weights.h5", "w-07.weights.h5", True),
        ("w-{epoch:02d}.weights.h5", "w-07-abc123.weights.h5", True),
        ("w-{epoch:02d}.weights.h5", "w-07-abc123-7.weights.h5", True),
        ("w-{epoch:02d}.weights.h5", "w-7x.weights.h5", False),
        ("w-{epoch:02d}.weights.h5", "w-07.keras", False),
        ("w-{epoch:02d}.weights.h5", "sub/w-07.weights.h5", False),
        ("{epoch}-{val_loss:.2f}.keras", "12--0.50.keras", True),
        ("{epoch}-{val_loss:.2f}.keras", "12-nan.keras", True),
        ("{epoch}-{val_loss:.3e}.h5", "1-1.234e-05.h5", True),
        ("{epoch}/w.h5", "3/w.h5", True),
        ("{epoch}/w.h5", "other/w.h5", False),
        ("{epoch:x>5}.h5", "xxxx1.h5", True),
        ("best.weights.h5", "best.weights.h5", True),
        ("best.weights.h5", "worst.weights.h5", False),
    ],
)
def test_a_template_tells_the_keys_that_it_can_have_made(template, key, can):
    """A sweep aborts the uploads to these, and to no others."""
    assert NameTemplate(template).may_have_made(key) is can


@pytest.mark.parametrize(
    "text",
    [
        "{epoch:0200000000d}.keras",
        "{epoch.__class__.__init__.__globals__}.keras",
        "{epoch[0]}.keras",
        "{loss:.999999f}.keras",
        "{loss:{epoch}}.keras",
        "{epoch:>4000}.keras",
        "w" * 3000 + "{epoch}.keras",
    ],
)
def test_a_template_is_data_and_no_program(text):
    """It may come from a manifest that nobody vouches for."""
    with pytest.raises(LocationError, match="cannot be used"):
        NameTemplate(text)


@pytest.mark.parametrize("text", ["{epoch:02d}", "{val_loss:.4f}", "{loss:+010.3e}", "{acc:.1%}", "{a b:>12}", "{x!r}"])
def test_the_formats_that_people_use_stay(text):
    """Widths, precisions, signs."""
    assert NameTemplate(f"{text}.keras").fields
