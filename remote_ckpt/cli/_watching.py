"""Output of `watch`: on a terminal a table, redrawn every second; else a line for each checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from remote_ckpt.cli._console import cells, safe, say, table
from remote_ckpt.cli._facts import age, as_json, number
from remote_ckpt.cli._track import News, Track
from remote_ckpt.formatting import human_bytes


class Lines:
    """A line for the state of each series at the first look, then a line for each new checkpoint."""

    def __init__(self, *, as_json: bool) -> None:
        """Choose JSON lines (for programs) or text lines."""
        self._json = as_json

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: the printed lines stay."""

    def show(self, tracks: dict[str, Track], news: dict[str, list[News]], *, first: bool) -> None:
        """Print the state of each series at the first look, later the new checkpoints."""
        for name, track in tracks.items():
            if self._json:
                if first:
                    _print_json({"event": "state", **state(name, track)})
                for one in () if first else news.get(name, ()):
                    _print_json({"event": "checkpoint", **_as_json(name, track, one)})
            elif first:
                say(f"{_clock()}  {name}: {_summary(track)}")
                self._say_best(track)
            else:
                for one in news.get(name, ()):
                    say(_line(track, one))

    def problem(self, text: str) -> None:
        """Do nothing: the caller prints the problem on stderr."""

    def _say_best(self, track: Track) -> None:
        if (best := track.best) is not None:
            say(f"{_clock()}  epoch {best.epoch + 1}  {track.series.monitor} {number(best.score)}  best  {best.key}")


class Board:
    """A table on the terminal, redrawn every second by a thread of rich."""

    def __init__(self, console: Console, url: str) -> None:
        """Take the console, and the URL for the heading."""
        self._url, self._tracks, self._problem = url, dict[str, Track](), ""
        self._looked = time.monotonic()
        self._live = Live(console=console, get_renderable=self._picture, refresh_per_second=1)

    def __enter__(self) -> Board:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, tracks: dict[str, Track], news: dict[str, list[News]], *, first: bool) -> None:  # noqa: ARG002
        """Show the present state at once, and remove the problem shown before."""
        self._tracks, self._problem, self._looked = tracks, "", time.monotonic()
        self._live.refresh()

    def problem(self, text: str) -> None:
        """Show a problem until the next successful look."""
        self._problem = text

    def _picture(self) -> Group:
        # Called by rich's thread every second, while the main thread may be changing the same tracks.
        ago = f"looked {time.monotonic() - self._looked:.0f} s ago; Ctrl-C ends it"
        parts: list[Any] = [Text(f"{safe(self._url)}  ({ago})", style="dim")]
        parts += drawn(self._tracks.items()) if self._tracks else [Text("waiting for the first checkpoint …")]
        return Group(*parts, *([Text(safe(self._problem), style="yellow")] if self._problem else []))


def drawn(tracks: Iterable[tuple[str, Track]]) -> list[Any]:
    """Return the state of series, to be printed by rich."""
    parts: list[Any] = []
    for name, track in tracks:
        parts.append(Text(safe(f"{name}  ({track.series.monitor}, {track.series.mode}): {_summary(track)}"), "bold"))
        rows = table("", "epoch", "score", "age", "size", "key", right=("epoch", "score", "age", "size"))
        for mark, record in (("best", track.best), ("latest", track.latest)):
            if record is not None:
                facts = (record.epoch + 1, number(record.score), age(record.created), human_bytes(record.size))
                rows.add_row(*cells(mark, *facts, record.key))
        parts.append(rows)
    return parts


def state(name: str, track: Track) -> dict[str, Any]:
    """Return the state of a series, for programs."""
    return {
        "series": name,
        "monitor": track.series.monitor,
        "mode": track.series.mode,
        "commits": track.commits,
        "improvements": track.improvements,
        "per_hour": track.hourly,
        "best": as_json(track.best) if track.best else None,
        "latest": as_json(track.latest) if track.latest else None,
    }


def _summary(track: Track) -> str:
    rate = track.hourly
    speed = "" if rate is None else f", {rate:,.0f} an hour" if rate >= 10 else f", {rate:.2g} an hour"
    improvements = f"{track.improvements} improvement{'' if track.improvements == 1 else 's'}"
    return f"{track.commits} checkpoint{'' if track.commits == 1 else 's'}, {improvements}{speed}"


def _line(track: Track, one: News) -> str:
    mark = "best  " if one.improved else ""
    key = one.record.key if one.record else "(pruned)"
    return f"{_clock()}  epoch {one.entry.epoch + 1}  {track.series.monitor} {number(one.entry.own_score)}  {mark}{key}"


def _as_json(name: str, track: Track, one: News) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(one.entry.model_dump_json())
    facts["epoch"] = one.entry.epoch + 1
    facts["monitor"] = one.entry.monitor or track.series.monitor
    url = one.record.url if one.record else None
    return {"series": name, "improved": one.improved, "url": url, **facts}


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)  # noqa: T201 - one line each, for programs


def _clock() -> str:
    return datetime.now(timezone.utc).astimezone().strftime("%H:%M:%S")
