"""`remote-ckpt watch`: follow a run during training."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from remote_ckpt.cli._arguments import Debug, Json, Options, Url, storage_options
from remote_ckpt.cli._console import say_json, stdout, tell
from remote_ckpt.cli._evaluator import VARIABLES, Evaluator
from remote_ckpt.cli._track import News, Track
from remote_ckpt.cli._watching import Board, Lines, drawn, state
from remote_ckpt.errors import TransientError
from remote_ckpt.records import Series
from remote_ckpt.run import Run

Every = Annotated[float, typer.Option("--every", metavar="SECONDS", min=0.1, help="How often to look.")]
Once = Annotated[bool, typer.Option("--once", help="Look once and end.")]
Exec = Annotated[
    str | None,
    typer.Option(
        "--exec",
        metavar="COMMAND",
        help="Run this on each new best, not through a shell; {} stands for the downloaded file. In its environment: "
        f"{VARIABLES}.",
        show_default=False,
    ),
]


def watch(
    url: Url,
    every: Every = 5.0,
    once: Once = False,
    command: Exec = None,
    option: Options = None,
    json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - see Debug
) -> None:
    """Follow a run while it trains: the newest checkpoint, the best, improvements and rate.

    On a terminal a table, drawn anew every second; else, and with --exec, a line for each new checkpoint. A run that
    does not exist yet is waited for. Ctrl-C ends it, with exit code 130.
    """
    run = Run(url, storage_options=storage_options(option))
    evaluator = Evaluator.parse(command) if command is not None else None
    watcher = _Watcher(run)
    if once:
        _show_once(watcher, evaluator, json=json)
        return
    plain = json or evaluator is not None or not stdout().is_terminal
    with Lines(as_json=json) if plain else Board(stdout(), run.url) as screen:
        if plain:
            tell(f"watching {run.url}, every {every:g} s; Ctrl-C ends it")
        watcher.follow(screen, evaluator, every)


class _Watcher:
    """A reader of a run, again and again.

    Attributes:
        run: The run.
        tracks: The run's series so far, by template.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tracks: dict[str, Track] = {}
        self._evaluated: str | None = None

    def look(self) -> dict[str, list[News]]:
        """Read the manifest, and return the new commits by series."""
        news = {}
        for name, series in self._present().items():
            if series.history and name not in self.tracks:
                self.tracks[name] = Track(series)
            if name in self.tracks:
                news[name] = self.tracks[name].look(series)
        return news

    def follow(self, screen: Lines | Board, evaluator: Evaluator | None, every: float) -> None:
        """Show new commits and run the command on each new best, until interrupted.

        Looks every `every` seconds. After a TransientError the next look tries again; a message that was shown last is
        not repeated.

        Raises:
            RemoteCkptError: Any except TransientError; also OSError. The watch has ended then.
        """
        told = ""
        while True:
            first = not self.tracks
            try:
                screen.show(self.tracks, self.look(), first=first)
                self.evaluate(evaluator)
                told = ""
            except TransientError as exc:  # from the look or from a download; other errors end the watch
                if str(exc) != told:
                    told = str(exc)
                    _tell_problem(screen, told)
            time.sleep(every)

    def evaluate(self, evaluator: Evaluator | None) -> None:
        """Run the command on the best of the run, unless done before."""
        if evaluator is None or not self.tracks:
            return
        best = self.run.best  # reads the manifest again: a commit may have arrived since the look
        if best is not None and best.id != self._evaluated:
            evaluator.run(self.run, best, self.tracks[best.series].series.monitor)
            self._evaluated = best.id  # after the run: a download that failed transiently is tried again

    def _present(self) -> dict[str, Series]:
        """Return the series; with their full history if a series is new, else as the manifest holds them."""
        template = self.run.location.template
        series = {name: one for name, one in self.run.manifest().series.items() if template in (None, name)}
        return series if series.keys() <= self.tracks.keys() else self.run.series


def _tell_problem(screen: Lines | Board, text: str) -> None:
    screen.problem(text)
    if isinstance(screen, Lines):
        tell(f"{text} Looking again.", style="yellow")


def _show_once(watcher: _Watcher, evaluator: Evaluator | None, *, json: bool) -> None:
    watcher.look()
    if not watcher.tracks:
        raise watcher.run.nothing()
    if json:
        say_json([state(name, track) for name, track in watcher.tracks.items()])
    else:
        for part in drawn(watcher.tracks.items()):
            stdout().print(part)
    watcher.evaluate(evaluator)
