"""A page about runs, complete in one file: without network requests and without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from remote_ckpt.formatting import age, human_bytes, number, shortened
from remote_ckpt.pictures.curves import Curve, best_curves_first, folder_of
from remote_ckpt.pictures.markup import Markup, element, joined
from remote_ckpt.pictures.palette import LOOKS
from remote_ckpt.pictures.stylesheet import STYLESHEET
from remote_ckpt.pictures.svg import sample, score_chart, timeline_chart

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
"""

_COLUMNS = ("", "run", "best", "epoch", "captured", "size", "checkpoints", "in the bucket", "last save")
_WORDS = ("", "run")  # these are left-aligned


def page(curves: Sequence[Curve], now: datetime) -> str:
    """Return the page: for each metric a leaderboard, the scores by epoch, and how soon checkpoints were in the bucket.

    The facts of a run come from its manifest, which may have been written by anybody; they are shown as text only.

    Args:
        curves: At least one.
        now: The time at which ages are counted.
    """
    groups: dict[object, list[Curve]] = {}
    for curve in curves:
        groups.setdefault(curve.judge, []).append(curve)
    ordered = sorted(groups.values(), key=lambda group: (-len(group), group[0].judge))
    title = f"Checkpoints of {shortened(folder_of(curves) or 'several runs', 120)}"
    size = human_bytes(sum(curve.size for curve in curves))
    count = len({curve.run for curve in curves})
    summary = f"{count} run{'' if count == 1 else 's'}, {size} in the bucket. As of {now:%Y-%m-%d %H:%M %Z}."
    sections = [_section(best_curves_first(group), now) for group in ordered]
    body = [element("h1", title), element("p", summary, class_="faint"), *sections]
    head = [element("title", title), element("style", Markup(STYLESHEET))]
    return f"{_HEAD}{joined(head)}\n</head>\n{element('body', element('main', *body))}\n</html>\n"


def _section(curves: Sequence[Curve], now: datetime) -> Markup:
    monitor, mode = curves[0].judge
    title, timeline = timeline_chart(curves)
    notes = ["Steps: the best so far. Rings: the best of each run. Point at a mark to read it."]
    if len(curves) > LOOKS:
        notes.append(f"The best {LOOKS} of {len(curves)} are drawn.")
    if unknown := sum(curve.unknown for curve in curves):
        notes.append(f"×: no number, or infinite ({unknown}).")
    return element(
        "section",
        element("h2", f"{shortened(monitor, 80)} ({'higher' if mode == 'max' else 'lower'} is better)"),
        _leaderboard(curves, now),
        element("figure", element("figcaption", "Scores by epoch"), score_chart(curves), element("p", " ".join(notes))),
        element("figure", element("figcaption", title), timeline),
        _best_objects(curves),
    )


def _leaderboard(curves: Sequence[Curve], now: datetime) -> Markup:
    largest = max(curve.size for curve in curves) or 1
    head = element("tr", *(element("th", name, scope="col", class_=_side(name)) for name in _COLUMNS))
    rows = [_row(place, curve, largest, now) for place, curve in enumerate(curves)]
    return element("div", element("table", element("thead", head), element("tbody", *rows)), class_="wide")


def _row(place: int, curve: Curve, largest: int, now: datetime) -> Markup:
    record = next((record for record in curve.records if curve.best and record.id == curve.best.id), None)
    last = max((record.created for record in curve.records), default=None)
    bar = element("span", class_="bar", style=f"width:{100 * curve.size / largest:.1f}%")
    values = (
        [sample(place)] if place < LOOKS else [],
        element("span", shortened(curve.name, 80), title=f"{curve.run}/{curve.series}"),
        number(curve.score),
        curve.best.epoch if curve.best else "-",
        _moment(record.created, now) if record else "-",
        human_bytes(record.size) if record else "-",
        len(curve.records),
        [bar, human_bytes(curve.size)],
        _moment(last, now) if last else "-",
    )
    cells = [element("td", value, class_=_side(name)) for name, value in zip(_COLUMNS, values, strict=True)]
    return element("tr", *cells)


def _best_objects(curves: Sequence[Curve]) -> Markup:
    records = {record.id: record for curve in curves for record in curve.records}
    bests = [(curve, records[curve.best.id]) for curve in curves if curve.best and curve.best.id in records]
    rows = [
        element("tr", *(element("td", text, class_="word") for text in (curve.name, record.url, record.sha256)))
        for curve, record in bests
    ]
    head = element("tr", *(element("th", name, scope="col", class_="word") for name in ("run", "object", "sha256")))
    table = element("table", element("thead", head), element("tbody", *rows), class_="objects")
    summary = element("summary", "Where the best are, and their digests")
    return element("details", summary, element("div", table, class_="wide"))


def _moment(moment: datetime, now: datetime) -> Markup:
    return element("span", f"{age(moment, now)} ago", title=moment.isoformat(sep=" ", timespec="seconds"))


def _side(column: str) -> str | None:
    return "word" if column in _WORDS else None
