"""What scripts, pipes and shells rely on: stdout, JSON, exit codes, completion, and a start without delay."""

import json
import os
import pty
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from records import seal
from typer.testing import CliRunner

from remote_ckpt.cli._app import app
from remote_ckpt.cli._commands import COMMANDS
from remote_ckpt.location import Location
from remote_ckpt.run import Run
from remote_ckpt.saving.spool import Spool

PROGRAM = [sys.executable, "-m", "remote_ckpt.cli"]


def invoke(*arguments):
    return CliRunner(env={"COLUMNS": "40"}).invoke(app, [str(argument) for argument in arguments])


def leave_in_spool(folder, *scores, start=0):
    spool = Spool(Location.parse(folder))
    for number, score in enumerate(scores, start):
        seal(spool, number, score)
    spool.close()


@pytest.fixture
def run(tmp_path):
    """The second checkpoint is the best, the third the latest."""
    leave_in_spool(tmp_path / "run", 0.5, 0.25, 0.75)
    made = Run(tmp_path / "run")
    made.recover()
    return made


def test_a_checkpoint_goes_into_a_pipe(run):
    """Its very bytes, and nothing else."""
    done = subprocess.run([*PROGRAM, "pull", run.url, "-o", "-"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == Path(run.best.url).read_bytes()


def test_a_damaged_checkpoint_does_not_go_into_a_pipe(run):
    """Not a byte of it: the one before it is sent, with a warning; of one that was named, nothing."""
    Path(run.best.url).write_bytes(b"x" * run.best.size)
    done = subprocess.run([*PROGRAM, "pull", run.url, "2", "-o", "-"], capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"is not what was saved" in done.stderr
    done = subprocess.run([*PROGRAM, "pull", run.url, "-o", "-"], capture_output=True)
    assert done.stdout == Path(run.find("id0").url).read_bytes()
    assert b"Passing over epoch 2" in done.stderr


def test_a_terminal_is_not_sent_bytes(run):
    """They would garble it; the message says what to write."""
    ours, theirs = pty.openpty()
    done = subprocess.run([*PROGRAM, "pull", run.url, "-o", "-"], stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 2
    assert b"garble" in done.stderr


def test_an_output_has_one_name_everywhere(run, tmp_path):
    """As with curl; what it always was called works too. Two outputs cannot share stdout."""
    for number, flag in enumerate(("-o", "--output", "--to")):
        target = tmp_path / f"{number}.weights.h5"
        assert invoke("pull", run.url, flag, target).stdout == f"{target}\n"
        assert target.read_bytes() == Path(run.best.url).read_bytes()
    assert invoke("pull", run.url, "-o", "-", "--json").exit_code == 2


def test_pull_says_which_it_is(run, tmp_path):
    """Also when it is not the one that was asked for."""
    told = json.loads(invoke("pull", run.url, "--to", tmp_path / "here.weights.h5", "--json").stdout)
    assert (told["epoch"], told["path"]) == (2, str(tmp_path / "here.weights.h5"))
    Path(run.best.url).write_bytes(b"x" * run.best.size)
    for cached in (tmp_path / "cache").rglob("*.weights.h5"):
        cached.unlink()
    told = json.loads(invoke("pull", run.url, "--json").stdout)
    assert told["epoch"] == 1
    assert Path(told["path"]).read_bytes() == Path(run.find("id0").url).read_bytes()


def test_prune_and_sweep_tell_programs_what_goes(run):
    """Or would go."""
    told = json.loads(invoke("prune", run.url, "--keep-best", "1", "--dry-run", "--json").stdout)
    assert (told["dry_run"], [record["epoch"] for record in told["deleted"]]) == (True, [1])
    assert len(run.checkpoints) == 3
    orphan = Path(run.url) / ".remote_ckpt" / "lost.weights.h5"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"x")
    told = json.loads(invoke("sweep", run.url, "--older-than", "0", "--dry-run", "--json").stdout)
    assert told == {"dry_run": True, "deleted": [".remote_ckpt/lost.weights.h5"]}
    assert orphan.exists()


def test_recover_tells_programs_what_it_uploaded(run):
    """And what is left to others."""
    leave_in_spool(run.url, 0.1, start=5)
    told = json.loads(invoke("recover", run.url, "--json").stdout)
    assert ([record["epoch"] for record in told["uploaded"]], told["left"]) == ([6], 0)
    assert json.loads(invoke("recover", run.url, "--json").stdout) == {"uploaded": [], "left": 0}


def test_every_command_that_prints_facts_has_json():
    """The demonstration prints none."""
    for name in COMMANDS.keys() - {"demo", "plot", "report", "sign"}:
        assert "--json" in invoke(name, "--help").stdout, name


def test_the_version_is_told():
    """As pip knows it."""
    assert invoke("--version").stdout == f"remote-ckpt {version('remote_ckpt')}\n"


def test_help_tells_the_exit_codes():
    """Scripts depend on them."""
    told = " ".join(invoke("--help").stdout.split())
    assert "0 done; 1 failed; 2 called wrongly" in told
    assert "130 interrupted" in told


def test_shells_complete_commands_and_options():
    """Without importing what a command needs."""

    def complete(words):
        environment = {**os.environ, "_REMOTE_CKPT_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": words}
        return subprocess.run([sys.executable, "-c", CALL], env=environment, capture_output=True, text=True).stdout

    assert '"sweep"' in complete("remote-ckpt sw")
    assert "--keep-best" in complete("remote-ckpt prune --keep")


CALL = "from remote_ckpt.cli import main; main()"


def test_colours_can_be_switched_off(run):
    """By NO_COLOR, on a terminal that would show them."""

    def shown(**environment):
        ours, theirs = pty.openpty()
        subprocess.run(
            [*PROGRAM, "ls", run.url], stdout=theirs, env={**os.environ, "TERM": "xterm-256color", **environment}
        )
        os.close(theirs)
        text = os.read(ours, 65536).decode()
        os.close(ours)
        return text

    assert "\x1b[32m" in shown()
    assert "\x1b[32m" not in shown(NO_COLOR="1")


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], {"remote_ckpt.run", "pydantic", "fsspec", "h5py"}),
        (["--version"], {"remote_ckpt.run", "pydantic", "fsspec", "rich", "h5py"}),
        (["ls", "RUN"], set()),
        (["show", "RUN"], set()),
        (["pull", "RUN"], set()),
        (["watch", "RUN", "--once"], set()),
        (["prune", "RUN", "--keep-best", "1", "--dry-run"], set()),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_imports_what_it_needs(run, arguments, unwanted):
    """No framework, and no cloud for a local run: so it answers at once."""
    code = (
        "import sys; from remote_ckpt.cli import main\n"
        "unwanted = set(sys.argv.pop(1).split(','))\n"
        "try: main()\n"
        "except SystemExit as exc: assert not exc.code\n"
        "sys.exit(', '.join(unwanted & set(sys.modules)) or 0)"
    )
    never = {"keras", "tensorflow", "h5py", "s3fs", "gcsfs", "aiobotocore", "botocore", "aiohttp"}
    words = [run.url if word == "RUN" else word for word in arguments]
    command = [sys.executable, "-c", code, ",".join(never | unwanted), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
