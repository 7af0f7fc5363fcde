"""`watch`: a run is followed, and a program is run on each new best."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from records import checkpoint, seal
from typer.testing import CliRunner
from waiting import HANG

from remote_ckpt.cli._app import app
from remote_ckpt.cli._track import Track
from remote_ckpt.location import Location
from remote_ckpt.records import Series
from remote_ckpt.run import Run
from remote_ckpt.saving.spool import Spool


def invoke(*arguments):
    return CliRunner(env={"COLUMNS": "40"}).invoke(app, [str(argument) for argument in arguments])


def commit(folder, *scores, start=0, **changes):
    """What training does."""
    spool = Spool(Location.parse(folder))
    for number, score in enumerate(scores, start):
        seal(spool, number, score, **changes)
    spool.close()
    Run(folder).recover()


@contextmanager
def watching(*arguments, **options):
    """The program in a process of its own, looking ten times a second."""
    command = [sys.executable, "-m", "remote_ckpt.cli", "watch", "--every", "0.1", *map(str, arguments)]
    process = subprocess.Popen(
        command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def end(process):
    """Ctrl-C."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=HANG)
    return process.returncode, out, err


def test_a_run_that_does_not_exist_yet_is_waited_for_and_then_followed(tmp_path):
    """A line for each new checkpoint when piped; Ctrl-C ends it with 130 and without a traceback."""
    folder = tmp_path / "run"
    with watching(folder) as process:
        assert process.stderr.readline() == f"remote-ckpt: watching {folder}, every 0.1 s; Ctrl-C ends it\n"
        commit(folder, 0.5)
        lines = [process.stdout.readline().split("  ") for _ in range(2)]
        commit(folder, 0.7, 0.25, start=1)
        lines += [process.stdout.readline().split("  ") for _ in range(2)]
        code, out, err = end(process)
    assert [line[1:] for line in lines] == [
        ["w-{epoch:02d}.weights.h5: 1 checkpoint, 1 improvement\n"],
        ["epoch 1", "val_loss 0.5", "best", "w-00.weights.h5\n"],
        ["epoch 2", "val_loss 0.7", "w-01.weights.h5\n"],
        ["epoch 3", "val_loss 0.25", "best", "w-02.weights.h5\n"],
    ]
    assert (code, out) == (130, "")
    assert err == "remote-ckpt: interrupted. Nothing partial is left behind; the command can be run again.\n"


def test_lines_for_programs_are_json(tmp_path):
    """The state first, then each checkpoint; epochs count from one."""
    commit(tmp_path / "run", 0.5)
    with watching(tmp_path / "run", "--json") as process:
        state = json.loads(process.stdout.readline())
        commit(tmp_path / "run", 0.25, start=1)
        news = json.loads(process.stdout.readline())
        assert end(process)[0] == 130
    assert (state["event"], state["commits"], state["best"]["epoch"]) == ("state", 1, 1)
    assert (news["event"], news["epoch"], news["improved"], news["score"]) == ("checkpoint", 2, True, 0.25)
    assert Path(news["url"]).is_file()


def test_on_a_terminal_there_is_a_table(tmp_path):
    """That is drawn anew; the terminal is left as it was."""
    commit(tmp_path / "run", 0.5, 0.25)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with watching(tmp_path / "run", stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = read_until(ours, "w-01.weights.h5")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=HANG) == 130
        shown += read_until(ours, "interrupted")
    os.close(ours)
    assert "2 checkpoints, 2 improvements" in shown
    assert "Traceback" not in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")  # the cursor is back


def read_until(terminal, text, seconds=HANG):
    shown, deadline = "", time.monotonic() + seconds
    while text not in shown and time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            try:
                shown += os.read(terminal, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                break
    return shown


def test_once_shows_the_state_and_ends(tmp_path):
    """As a table, or for programs; a run without checkpoints is an error then."""
    commit(tmp_path / "run", 0.5, 0.25, 0.7)
    told = invoke("watch", tmp_path / "run", "--once").stdout
    assert "(val_loss, min): 3 checkpoints, 2 improvements, 3,600 an hour" in told
    assert [line.split()[:3] for line in told.splitlines()[2:]] == [["best", "2", "0.25"], ["latest", "3", "0.7"]]
    (state,) = json.loads(invoke("watch", tmp_path / "run", "--once", "--json").stdout)
    assert (state["commits"], state["improvements"], state["latest"]["epoch"]) == (3, 2, 3)
    assert invoke("watch", tmp_path / "none", "--once").exit_code == 1


def test_a_program_is_run_on_each_new_best(tmp_path):
    """With the verified file's path in its command, and the rest in its environment."""
    script = tmp_path / "evaluate.py"
    script.write_text(
        "import os, sys\n"
        "facts = [os.environ['REMOTE_CKPT_' + name] for name in ('EPOCH', 'SCORE', 'MONITOR', 'ID')]\n"
        "same = sys.argv[1] == os.environ['REMOTE_CKPT_FILE'] and os.path.getsize(sys.argv[1])\n"
        "print('evaluated', *facts, same, flush=True)\n"
    )
    commit(tmp_path / "run", 0.5)
    with watching(tmp_path / "run", "--exec", f"{sys.executable} {script} {{}}") as process:
        first = read_line(process, "evaluated")
        commit(tmp_path / "run", 0.7, 0.25, start=1)
        second = read_line(process, "evaluated")
        assert end(process)[0] == 130
    assert first == "evaluated 1 0.5 val_loss id0 1000\n"
    assert second == "evaluated 3 0.25 val_loss id2 1000\n"


def read_line(process, beginning):
    return next(line for line in process.stdout if line.startswith(beginning))


def test_nothing_of_a_manifest_becomes_part_of_a_command(tmp_path):
    """Names from a bucket reach a program as values of its environment only; there is no shell."""
    commit(tmp_path / "run", 0.5)
    manifest = tmp_path / "run" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("val_loss", "$(touch owned); `touch owned` {}\\u0000"))
    show = tmp_path / "show.py"
    show.write_text("import os, sys; print(sys.argv[1:], os.environ['REMOTE_CKPT_MONITOR'])")
    command = f"{sys.executable} {show} '$(touch owned); {{}}'"
    done = subprocess.run(
        [sys.executable, "-m", "remote_ckpt.cli", "watch", str(tmp_path / "run"), "--once", "--exec", command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "['$(touch owned); /" in done.stdout
    assert "$(touch owned); `touch owned` {}\N{REPLACEMENT CHARACTER}" in done.stdout
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("command", ["no-such-program-here {}", "", "'"])
def test_a_command_that_cannot_run_is_told_at_once(tmp_path, command):
    """Rather than at the first checkpoint, tonight."""
    result = invoke("watch", tmp_path / "run", "--exec", command)
    assert result.exit_code == 2
    assert "--exec" in result.stderr


def test_a_program_that_fails_is_told_and_watching_goes_on(tmp_path):
    """So is a file that is damaged."""
    commit(tmp_path / "run", 0.5)
    result = invoke("watch", tmp_path / "run", "--once", "--exec", "false")
    assert result.exit_code == 0
    assert result.stderr == "remote-ckpt: false ended with exit code 1 on epoch 1.\n"
    (tmp_path / "run" / "w-00.weights.h5").write_bytes(bytes(1000))
    (cached,) = (tmp_path / "cache").rglob("*.weights.h5")
    cached.unlink()
    result = invoke("watch", tmp_path / "run", "--once", "--exec", "false")
    assert "epoch 1 was not evaluated: " in result.stderr


def series(*scores):
    made = Series(monitor="val_loss", mode="min")
    for number, score in enumerate(scores):
        made = made.with_checkpoint(checkpoint(number, score))
    return made


def test_a_track_counts_commits_and_improvements_though_they_are_pruned():
    """NaN improves nothing; each is counted once."""
    track = Track(series(0.5))
    track.look(series(0.5))
    pruned, _ = series(0.5, float("nan"), 0.4, 0.45, 0.3).pruned(1, 1)
    news = track.look(pruned)
    assert [(one.entry.epoch, one.improved, one.record is None) for one in news] == [
        (1, False, True),
        (2, True, True),
        (3, False, True),
        (4, True, False),
    ]
    assert (track.commits, track.improvements, track.hourly) == (5, 3, 3600.0)
    assert track.look(pruned) == []


def test_a_track_begins_anew_where_the_series_is_judged_by_another_metric():
    """A loss of 0.5 is no accuracy to beat."""
    followed = series(0.5)
    track = Track(followed)
    track.look(followed)
    changed = followed.scored_by("val_accuracy", "max")
    logs = {"val_accuracy": 0.25}
    (news,) = track.look(changed.with_checkpoint(checkpoint(9, 0.25, logs=logs)))
    assert news.improved


def test_the_signing_key_is_not_handed_on(tmp_path, monkeypatch):
    """A program that looks at a checkpoint need not be able to sign one."""
    key = "0123456789abcdef-not-yours"
    monkeypatch.setenv("REMOTE_CKPT_SIGNING_KEY", key)
    commit(tmp_path / "run", 0.5)  # signed
    show = tmp_path / "show.py"
    show.write_text("import os, pathlib\npathlib.Path('seen').write_text(repr(dict(os.environ)))\n")
    command = [sys.executable, "-m", "remote_ckpt.cli", "watch", str(tmp_path / "run"), "--once"]
    subprocess.run([*command, "--exec", f"{sys.executable} {show}"], cwd=tmp_path, check=True, capture_output=True)
    assert "REMOTE_CKPT_FILE" in (tmp_path / "seen").read_text()
    assert key not in (tmp_path / "seen").read_text()
