"""The command line, on local runs that hold real files."""

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from records import seal
from typer.testing import CliRunner
from waiting import HANG

from remote_ckpt.cli._app import app
from remote_ckpt.errors import LocationError
from remote_ckpt.location import Location
from remote_ckpt.run import Run
from remote_ckpt.saving.spool import Spool

SCORES = (0.5, 0.25, 0.75)  # the second is the best (min), the third the latest


def invoke(*arguments):
    return CliRunner(env={"COLUMNS": "40"}).invoke(app, [str(argument) for argument in arguments])


def leave_in_spool(folder, *scores, start=0, **changes):
    """What a process leaves that was killed before it uploaded anything."""
    spool = Spool(Location.parse(folder))
    for number, score in enumerate(scores, start):
        seal(spool, number, score, **changes)
    spool.close()


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    leave_in_spool(folder, *SCORES)
    made = Run(folder)
    assert len(made.recover()) == len(SCORES)
    return made


def test_ls_marks_the_best_and_the_latest_and_counts_epochs_from_one(run):
    """As Keras shows them."""
    result = invoke("ls", run.url)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert lines[0] == ["w-{epoch:02d}.weights.h5", "(val_loss,", "min)"]
    assert [line[:2] for line in lines[2:]] == [["1", "0.5"], ["2", "0.25"], ["3", "0.75"]]
    assert [line[6:] for line in lines[2:]] == [
        ["w-00.weights.h5"],
        ["best", "w-01.weights.h5"],
        ["latest", "w-02.weights.h5"],
    ]


def test_ls_is_plain_and_uncut_when_piped(run):
    """Every line is whole, without colours."""
    result = invoke("ls", run.url)
    assert "\x1b" not in result.stdout
    assert "…" not in result.stdout


def test_ls_json_is_for_programs(run):
    """Series by template; epochs from one."""
    told = json.loads(invoke("ls", run.url, "--json").stdout)
    (series,) = told["series"].values()
    assert [record["epoch"] for record in series["checkpoints"]] == [1, 2, 3]
    assert (series["best"], series["latest"]) == ("id1", "id2")
    assert told["pending"] == []


def test_ls_of_a_template_lists_that_series_alone(run, tmp_path):
    """The URL that training was given works too."""
    leave_in_spool(run.url, 0.1, start=9, series="other-{epoch}.weights.h5", key="other-10.weights.h5")
    run.recover()
    result = invoke("ls", f"{run.url}/other-{{epoch}}.weights.h5")
    assert "other-10.weights.h5" in result.stdout
    assert "w-01" not in result.stdout


def test_ls_mentions_what_waits_in_the_spool(run):
    """On stderr, so that the table stays a table."""
    leave_in_spool(run.url, 0.1, start=5)
    result = invoke("ls", run.url)
    assert "1 more (1.0 kB) in this machine's spool" in result.stderr
    assert "w-05" not in result.stdout


@pytest.mark.parametrize("command", ["ls", "show", "pull", "verify"])
def test_no_checkpoint_is_one_line_and_exit_code_one(command, tmp_path):
    """Without a traceback."""
    result = invoke(command, tmp_path / "nothing")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.fullmatch(r"remote-ckpt: .*nothing holds no checkpoint.*\n", result.stderr)


def test_no_checkpoint_tells_of_those_that_wait(tmp_path):
    """And how to upload them."""
    leave_in_spool(tmp_path / "run", 0.1)
    assert f"remote-ckpt recover {tmp_path / 'run'}" in invoke("ls", tmp_path / "run").stderr


def test_show_tells_all_and_how_to_fetch_without_us(run):
    """`cp` for a folder."""
    told = invoke("show", run.url).stdout
    best = run.best
    for fact in (best.url, best.sha256, best.id, "val_loss", f"cp {best.url} ."):
        assert fact in told
    assert re.search(r"^epoch +2 *$", told, re.MULTILINE)


@pytest.mark.parametrize(("which", "epoch"), [("best", 2), ("latest", 3), ("1", 1), ("id2", 3)])
def test_a_checkpoint_is_named_by_best_latest_epoch_or_id(run, which, epoch):
    """Epochs count from one."""
    assert json.loads(invoke("show", run.url, which, "--json").stdout)["epoch"] == epoch


def test_epoch_zero_is_refused(run):
    """Rather than guessed at."""
    result = invoke("show", run.url, "0")
    assert result.exit_code == 2
    assert "count from 1" in result.stderr


def test_pull_prints_the_path_and_nothing_else(run):
    """For use in `$(…)`."""
    path = Path(invoke("pull", run.url).stdout.removesuffix("\n"))
    assert path.read_bytes() == Path(run.best.url).read_bytes()


def test_pull_to_a_folder_keeps_the_name(run, tmp_path):
    """As `cp` does."""
    (tmp_path / "here").mkdir()
    invoke("pull", run.url, "1", "--to", tmp_path / "here")
    assert (tmp_path / "here" / "w-00.weights.h5").read_bytes() == Path(run.checkpoints[0].url).read_bytes()


def test_verify_says_ok_of_each(run):
    """Exit code 0."""
    result = invoke("verify", run.url)
    assert result.exit_code == 0
    assert [line[:4] for line in result.stdout.splitlines()] == ["ok  "] * 3


def test_verify_finds_damage_though_a_good_copy_is_cached(run):
    """Exit code 2; the others are still looked at."""
    invoke("pull", run.url)
    Path(run.best.url).write_bytes(b"x" * run.best.size)
    result = invoke("verify", run.url, "--json")
    assert result.exit_code == 2
    assert [bool(told["problem"]) for told in json.loads(result.stdout)] == [False, True, False]
    assert invoke("verify", run.url, "latest").exit_code == 0


def test_verify_finds_what_is_missing(run):
    """It counts as damage."""
    Path(run.best.url).unlink()
    result = invoke("verify", run.url)
    assert result.exit_code == 2
    assert "BAD  epoch 2" in result.stdout


def test_verify_leaves_nothing_on_the_disk(run, tmp_path):
    """Neither in the cache nor beside it."""
    invoke("verify", run.url)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_recover_uploads_what_dead_processes_left(run):
    """And says what; a second time there is nothing to do."""
    leave_in_spool(run.url, 0.1, start=5)
    result = invoke("recover", run.url)
    assert result.exit_code == 0
    assert result.stdout == f"uploaded epoch 6  {run.url}/w-05.weights.h5\n"
    assert run.best.id == "id5"
    assert "nothing waits" in invoke("recover", run.url).stderr


def test_recover_leaves_the_living_alone(run):
    """Their process uploads what is theirs."""
    spool = Spool(run.location)
    seal(spool, 5)
    result = invoke("recover", run.url)
    assert "1 belong to a process that is still running" in result.stderr
    spool.close()


def test_prune_tells_first_when_asked_to(run):
    """`--dry-run` changes nothing."""
    result = invoke("prune", run.url, "--keep-best", "1", "--dry-run")
    assert result.stdout == "would delete epoch 1  w-00.weights.h5\n"
    assert len(run.checkpoints) == 3
    invoke("prune", run.url, "--keep-best", "1")
    assert [record.id for record in run.checkpoints] == ["id1", "id2"]
    assert invoke("prune", run.url).exit_code == 2


def test_sweep_deletes_what_no_manifest_names(run):
    """Objects behind fixed names, whose commit never came."""
    orphan = Path(run.url) / ".remote_ckpt" / "best-x.weights.h5"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"x")
    assert invoke("sweep", run.url).stdout == ""
    assert "best-x.weights.h5" in invoke("sweep", run.url, "--older-than", "0").stdout
    assert not orphan.exists()


def test_names_from_the_bucket_cannot_steer_the_terminal(run):
    """Escape sequences and markup in a manifest are shown, not obeyed."""
    manifest = Path(run.url) / "manifest.json"
    manifest.write_text(manifest.read_text().replace("val_loss", r"\u001b]0;x\u0007[red]v"))
    for command in ("ls", "show"):
        told = invoke(command, run.url).stdout
        assert "\x1b" not in told
        assert "[red]v" in told


def test_an_error_is_one_line_unless_debug_is_asked_for(tmp_path):
    """Where our own errors are concerned."""
    result = invoke("ls", "nowhere://bucket/run")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert isinstance(invoke("ls", "nowhere://bucket/run", "--debug").exception, LocationError)


def test_options_may_nest_and_credentials_stay_text():
    """A secret of digits is no number."""
    from remote_ckpt.cli._arguments import storage_options

    told = storage_options(["client_kwargs.region_name=eu", "client_kwargs.verify=false", "anon=true", "secret=0123"])
    assert told == {"client_kwargs": {"region_name": "eu", "verify": False}, "anon": True, "secret": "0123"}


def test_a_malformed_option_is_not_repeated(run):
    """It may be a secret whose name was forgotten."""
    result = invoke("ls", run.url, "--option", "hunter2")
    assert result.exit_code == 2
    assert "hunter2" not in result.stderr


def test_ctrl_c_ends_with_130_and_a_short_message():
    """While the store does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = [f"endpoint_url=http://127.0.0.1:{silent.getsockname()[1]}", "key=k", "secret=s"]
        flags = [word for option in options for word in ("--option", option)]
        command = [sys.executable, "-m", "remote_ckpt.cli", "ls", "s3://bucket/run", *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            silent.settimeout(HANG)
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                _, told = process.communicate(timeout=HANG)
        finally:
            process.kill()
    assert process.returncode == 130
    assert told.splitlines()[-1].startswith("remote-ckpt: interrupted.")
    assert "Traceback" not in told


def test_a_traceback_cannot_steer_the_terminal(run):
    """With --debug an error is shown as Python shows it; what a bucket named is not obeyed."""
    (Path(run.url) / "manifest.json").write_text('{"format": 1, "series": {"\x1b]0;owned\x07": "\x9b2J"}}')
    for url in (run.url, f"{run.url}/\x1b[2J"):
        done = subprocess.run([sys.executable, "-m", "remote_ckpt.cli", "ls", url, "--debug"], capture_output=True)
        assert (done.returncode, "Traceback" in done.stderr.decode()) == (1, True)
        assert all(char.isprintable() or char == "\n" for char in done.stderr.decode())


def test_our_errors_hold_no_control_characters():
    """In a traceback too, outside of the command line."""
    assert str(LocationError("a\x1b[2Jb\x9bc\nd")) == "a\ufffd[2Jb\ufffdc\nd"
