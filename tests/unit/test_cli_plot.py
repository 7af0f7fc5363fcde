"""`remote-ckpt plot`, on local runs that hold real files."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
from records import seal, terms
from typer.testing import CliRunner

from remote_ckpt.cli._app import app
from remote_ckpt.location import Location
from remote_ckpt.run import Run
from remote_ckpt.saving.spool import Spool


def invoke(*arguments):
    return CliRunner(env={"COLUMNS": "70"}).invoke(app, [str(argument) for argument in arguments])


def make_run(folder, *scores, monitor="val_loss"):
    spool = Spool(Location.parse(folder))
    for number, score in enumerate(scores):
        logs = {monitor: score, "accuracy": number / 10}
        seal(spool, number, score, id=f"{folder.name}{number}", rules=terms(monitor=monitor), logs=logs)
    spool.close()
    Run(folder).recover()
    return folder


@pytest.fixture
def sweep(tmp_path):
    make_run(tmp_path / "sweep/one", 0.5, 0.25, 0.75)
    make_run(tmp_path / "sweep/two", 0.4, 0.3)
    return tmp_path / "sweep"


def test_a_run_is_a_chart_in_the_terminal(sweep):
    """Plain where it is piped; the best is named."""
    result = invoke("plot", sweep / "one")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert result.stdout.startswith("val_loss by epoch (lower is better)\n")
    assert "sweep/one  best 0.25 at epoch 2, 2 improvements\n  3 checkpoints, 3.0 kB; in the bucket" in result.stdout


def test_all_runs_below_a_prefix_are_laid_over_each_other(sweep):
    """As are those that are named one by one; each once, the best first."""
    below = invoke("plot", sweep).stdout
    assert invoke("plot", sweep / "two", sweep / "one", sweep / "one").stdout == below
    assert [line[2:5] for line in below.splitlines() if "best" in line] == ["one", "two"]


def test_json_has_the_numbers_behind_the_picture(sweep):
    """For programs; what JSON has no number for is text."""
    make_run(sweep / "three", float("nan"), 0.9)
    told = json.loads(invoke("plot", sweep, "--json").stdout)
    assert (told["metric"], told["mode"]) == ("val_loss", "min")
    assert [curve["name"] for curve in told["curves"]] == ["one", "two", "three"]
    one, _, three = told["curves"]
    assert [point["score"] for point in three["points"]] == ["NaN", 0.9]
    assert [(point["epoch"], point["score"], point["improved"]) for point in one["points"]] == [
        (1, 0.5, True),
        (2, 0.25, True),
        (3, 0.75, False),
    ]
    assert one["best"] == "one1"
    assert one["points"][0]["size"] == 1000
    assert one["points"][0]["created"] < one["points"][0]["uploaded"]


def test_another_metric_is_drawn_from_the_logs(sweep):
    """Its name says which way is better, or the user does."""
    assert "accuracy by epoch (higher is better)" in invoke("plot", sweep, "--metric", "accuracy").stdout
    assert "best 0 at epoch 1" in invoke("plot", sweep, "--metric", "accuracy", "--mode", "min").stdout


def test_a_metric_that_nobody_logged_is_an_error_that_lists_what_was(sweep):
    """In one line."""
    result = invoke("plot", sweep / "one", "--metric", "f1")
    assert result.exit_code == 1
    assert "What was logged: accuracy, val_loss." in result.stderr


def test_runs_of_different_metrics_are_not_laid_over_each_other(sweep):
    """The message names them, and the way out."""
    make_run(sweep / "three", 0.9, monitor="loss")
    result = invoke("plot", sweep)
    assert result.exit_code == 2
    assert all(word in result.stderr for word in ("val_loss", "three", "--metric"))


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_picture_is_written_with_o(sweep, kind, tmp_path):
    """Nothing goes to stdout."""
    target = tmp_path / f"picture.{kind}"
    result = invoke("plot", sweep, "-o", target)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert target.stat().st_size > 10_000


@pytest.mark.parametrize("name", ["picture.pdf", "endpoint_url=http://127.0.0.1"])
def test_a_picture_of_another_kind_is_refused(sweep, name):
    """Before anything is read."""
    result = invoke("plot", sweep, "-o", name)
    assert result.exit_code == 2
    assert ".png or" in result.stderr


def test_help_names_what_to_install():
    """In full, on one line."""
    told = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["plot", "--help"]).stdout
    assert "pip install matplotlib" in told


def test_nothing_to_draw_is_one_line(tmp_path):
    """And exit code 1."""
    result = invoke("plot", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"remote-ckpt: {tmp_path} holds no checkpoint")
    assert f"None of {tmp_path}, {tmp_path}/a holds" in invoke("plot", tmp_path, tmp_path / "a").stderr


def test_a_broken_run_is_left_out_and_told(sweep):
    """The others are drawn."""
    (sweep / "broken").mkdir()
    (sweep / "broken/manifest.json").write_text("{")
    result = invoke("plot", sweep)
    assert result.exit_code == 0
    assert "broken is left out" in result.stderr


@pytest.mark.parametrize(("setting", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_colours_unless_the_user_wants_none(sweep, setting, coloured):
    """Looked at through a real terminal."""
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "70", **setting}
    command = [sys.executable, "-m", "remote_ckpt.cli", "plot", str(sweep)]
    with subprocess.Popen(command, stdout=theirs, env=environment) as process:
        os.close(theirs)
        shown = _all_of(ours)
    assert process.returncode == 0
    assert ("\x1b[34m" in shown) is coloured
    assert "●" in shown


def _all_of(terminal: int) -> str:
    data = b""
    try:
        while chunk := os.read(terminal, 65536):
            data += chunk
    except OSError:  # Linux says so when the other end is closed
        pass
    finally:
        os.close(terminal)
    return data.decode()


def test_neither_help_nor_a_chart_imports_what_draws_pictures_or_keras(sweep):
    """They answer at once."""
    program = (
        "import sys; from remote_ckpt.cli._app import app; app(sys.argv[1:], standalone_mode=False); "
        "print({name for name in ('matplotlib', 'keras', 'tensorflow') if name in sys.modules})"
    )
    for arguments in (["--help"], ["plot", str(sweep)]):
        told = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
        assert told.stdout.splitlines()[-1] == "set()"
