"""`ls` of a prefix that holds many runs."""

import json
import re
import signal
import subprocess
import sys
import threading
from datetime import timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from records import seal, terms
from typer.testing import CliRunner
from waiting import HANG

from remote_ckpt.cli._app import app
from remote_ckpt.cli._commands import COMMANDS, load
from remote_ckpt.location import Location
from remote_ckpt.run import Run
from remote_ckpt.saving.spool import Spool


def invoke(*arguments):
    return CliRunner(env={"COLUMNS": "40"}).invoke(app, [str(argument) for argument in arguments])


def fill(folder, *scores, **rules):
    location = folder if isinstance(folder, Location) else Location.parse(folder)
    spool = Spool(location)
    for number, score in enumerate(scores):
        seal(spool, number, score, rules=terms(**rules))
    spool.close()
    Run(location).recover()


@pytest.fixture
def sweep(tmp_path):
    for name, scores in {"lr-1": (0.5, 0.4), "lr-2": (0.3, 0.6, 0.9), "lr-3": (0.45,)}.items():
        fill(tmp_path / "sweep" / name, *scores)
    return tmp_path / "sweep"


def test_a_prefix_of_runs_is_a_leaderboard(sweep):
    """Best first; of each the score, epoch and size of its best, and how many checkpoints there are."""
    result = invoke("ls", sweep)
    title, columns, *lines = [re.split(r"  +", line.strip()) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert title == ["val_loss, min: 3 runs"]
    assert columns == ["score", "epoch", "age", "size", "checkpoints", "last save", "run"]
    assert [(line[0], line[1], line[3], line[4], line[6]) for line in lines] == [
        ("0.3", "1", "1.0 kB", "3", "lr-2"),
        ("0.4", "2", "1.0 kB", "2", "lr-1"),
        ("0.45", "1", "1.0 kB", "1", "lr-3"),
    ]


def test_runs_of_different_metrics_are_grouped(sweep):
    """What most are judged by comes first."""
    fill(sweep / "other", 0.8, 0.9, monitor="val_accuracy", mode="max")
    told = invoke("ls", sweep).stdout
    assert re.findall(r"^(\S+, \S+): (\d) run", told, re.MULTILINE) == [
        ("val_loss, min", "3"),
        ("val_accuracy, max", "1"),
    ]


def test_a_broken_manifest_is_one_line(sweep):
    """On stderr; the others are listed."""
    (sweep / "lr-1" / "manifest.json").write_text("{")
    result = invoke("ls", sweep)
    assert result.exit_code == 0
    assert result.stderr.count("\n") == 1
    assert re.match(r"remote-ckpt: lr-1: .*manifest.json is not JSON", result.stderr)
    assert "2 runs" in result.stdout


def test_only_broken_manifests_are_told_too(tmp_path):
    """Not taken for nothing at all."""
    (tmp_path / "sweep" / "a").mkdir(parents=True)
    (tmp_path / "sweep" / "a" / "manifest.json").write_text("[]")
    result = invoke("ls", tmp_path / "sweep")
    assert "a: " in result.stderr
    assert result.stdout == ""
    assert result.exit_code == 1


def test_a_leaderboard_for_programs(sweep):
    """Each line has the whole record of its best, if any checkpoint has a score; epochs count from one."""
    fill(sweep / "odd", float("nan"))
    (sweep / "lr-1" / "manifest.json").write_text("{")
    told = json.loads(invoke("ls", sweep, "--json").stdout)
    (board,) = told["leaderboards"]
    assert (board["monitor"], board["mode"]) == ("val_loss", "min")
    *scored, last = board["runs"]
    assert [(run["name"], run["best"]["score"], run["best"]["epoch"]) for run in scored] == [
        ("lr-2", 0.3, 1),
        ("lr-3", 0.45, 1),
    ]
    assert (last["name"], last["best"]) == ("odd", None)
    assert [problem["name"] for problem in told["problems"]] == ["lr-1"]


def test_names_of_runs_cannot_steer_the_terminal(tmp_path):
    """They come from a bucket."""
    fill(Location.parse(tmp_path / "sweep").below("a\x1b[31m"), 0.5)  # nobody could name it
    (tmp_path / "sweep" / "b\x1b[31m").mkdir()
    (tmp_path / "sweep" / "b\x1b[31m" / "manifest.json").write_text("{")
    result = invoke("ls", tmp_path / "sweep")
    assert "a\N{REPLACEMENT CHARACTER}[31m" in result.stdout
    assert "\x1b" not in result.stdout + result.stderr


def test_a_run_is_listed_as_a_run_though_others_are_below(sweep):
    """The leaderboard is for prefixes that are no run."""
    fill(sweep, 0.1)
    assert "(val_loss, min)" in invoke("ls", sweep).stdout


def test_a_leaderboard_of_a_bucket(get_server, prefix):
    """With the same lines as of a folder."""
    server = get_server("seaweedfs")
    flags = [word for name, value in server.storage_options.items() for word in _flag(name, value)]
    for name, score in (("a", 0.5), ("b", 0.25)):
        url = server.url(f"{prefix}/{name}")
        spool = Spool(Location.parse(url))
        seal(spool, 0, score)
        spool.close()
        Run(url, storage_options=server.storage_options).recover()
    result = invoke("ls", server.url(prefix), *flags)
    assert [line.split()[-1] for line in result.stdout.splitlines()[2:]] == ["b", "a"]


def _flag(name, value):
    if isinstance(value, dict):
        return [word for inner, content in value.items() for word in _flag(f"{name}.{inner}", content)]
    return ["--option", f"{name}={value}"]


def test_the_commands_are_told_in_their_own_words():
    """What `--help` says of a command it has not imported is how the command's own help begins."""
    for name, line in COMMANDS.items():
        assert load(name).help.splitlines()[0] == line


def test_times_are_told_with_their_zone(sweep):
    """So that another machine understands them."""
    from datetime import datetime

    (board,) = json.loads(invoke("ls", sweep, "--json").stdout)["leaderboards"]
    assert datetime.fromisoformat(board["runs"][0]["latest"]).tzinfo == timezone.utc


class Silent(BaseHTTPRequestHandler):
    """Lists one run, and never answers what its manifest says."""

    asked = threading.Event()
    ended = threading.Event()

    def do_GET(self):
        pages = {"/": '<a href="/a/">a</a>', "/a": '<a href="/a/manifest.json">m</a>', "/a/manifest.json": "{}"}
        page = pages.get(self.path, "").encode()
        if self.path == "/a/manifest.json" and self.command == "GET":
            self.asked.set()
            self.ended.wait(2 * HANG)
        self.send_response(200 if page else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(page)

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def log_message(self, *_):
        pass


def test_ctrl_c_does_not_wait_for_a_silent_server():
    """Though several manifests are being read."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [sys.executable, "-m", "remote_ckpt.cli", "ls", f"http://127.0.0.1:{server.server_port}/"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert Silent.asked.wait(HANG)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=HANG)
        finally:
            Silent.ended.set()
            process.kill()
            server.shutdown()
    assert process.returncode == 130
    assert told == "remote-ckpt: interrupted. Nothing partial is left behind; the command can be run again.\n"
