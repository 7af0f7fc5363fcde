"""The page about runs, as its source; `e2e/test_report.py` opens it in a browser."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from drawn import CASES, NAN, curve
from records import EPOCH
from typer.testing import CliRunner

from remote_ckpt.cli._app import app
from remote_ckpt.pictures.curves import named
from remote_ckpt.pictures.markup import Markup, element
from remote_ckpt.pictures.page import page

NOW = EPOCH + timedelta(days=2)
HOSTILE = "\"'><script>alert(1)</script><img src=http://127.0.0.1:9/ onerror=alert(1)>&amp;\x1b[31m\u202e"


class Reader(HTMLParser):
    """What a page is made of."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.names, self.values, self.texts, self._open = [], set(), [], [], []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.names |= {name for name, _ in attributes}
        self.values += [value for _, value in attributes]
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def rows(source):
    body = source[source.index("<tbody>") : source.index("</tbody>") + len("</tbody>")]
    return [["".join(cell.itertext()) for cell in row] for row in ElementTree.fromstring(body)]


def test_the_leaderboard_has_the_best_run_first():
    """With the epoch, the age, and how much is kept."""
    runs = named([curve(0.5, 0.7, run="s3://b/x"), curve(0.9, 0.8, 0.1, run="s3://b/y")])
    assert rows(page(runs, NOW)) == [
        ["", "y", "0.9", "1", "2 d ago", "1.0 kB", "3", "3.0 kB", "1 d ago"],
        ["", "x", "0.7", "2", "1 d ago", "1.0 kB", "2", "2.0 kB", "1 d ago"],
    ]


def test_runs_of_different_metrics_stand_in_sections_of_their_own():
    """The metric of most runs first."""
    runs = [curve(0.5, monitor="loss", mode="min"), curve(0.7, run="a"), curve(0.6, run="b")]
    source = page(named(runs), NOW)
    assert source.index("val_accuracy (higher is better)") < source.index("loss (lower is better)")


def test_a_run_without_a_number_stands_last_with_dashes():
    """It has no best to tell of."""
    *_, last = rows(page(named([curve(NAN, run="a"), curve(0.1, run="b")]), NOW))
    assert last[:5] == ["", "a", "-", "-", "-"]


def test_what_a_manifest_says_never_becomes_markup():
    """Wherever it stands."""
    source = page(named([curve(0.5, 0.6, run=f"s3://b/{HOSTILE}", monitor=HOSTILE), curve(0.1, run=HOSTILE)]), NOW)
    read = Reader(source)
    assert not {"script", "img", "a", "link", "iframe", "object", "base"} & set(read.tags)
    assert not {"src", "href", "srcset", "action"} & read.names
    assert not any(name.startswith("on") for name in read.names)
    assert any("<script>alert(1)</script>" in text for text in read.texts)
    assert "\x1b" not in source
    assert "\u202e" not in source


def test_a_page_asks_the_network_for_nothing():
    """And its policy forbids what a mistake of ours might."""
    source = page([curve(0.5)], NOW)
    assert "default-src 'none'" in source
    assert "url(" not in source
    assert "@import" not in source


@pytest.mark.parametrize("case", CASES)
def test_a_page_is_whole_whatever_the_scores_are(case):
    """Each element is closed, and no place in a drawing is not a number."""
    source = page(CASES[case], NOW)
    drawings = source.split('<svg class="chart"')
    read = Reader(source)
    assert read.tags.count("figure") == 2
    assert not any(value in ("nan", "inf", "-inf") for value in read.values)
    assert not any("nan" in drawing.split("</svg>")[0] for drawing in drawings[1:])
    assert len(source) < 400_000


def test_times_at_the_ends_of_the_calendar_are_shown():
    """A hostile manifest may have any."""
    early = datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))
    late = datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))
    drawn = curve(0.5, 0.6)
    records = [
        record.model_copy(update={"created": when}) for record, when in zip(drawn.records, (early, late), strict=True)
    ]
    source = page([type(drawn)(**{**vars(drawn), "records": tuple(records)})], NOW)
    assert "0001-01-01" in source or "9999-12-31" in source


def test_markup_escapes_what_is_not_markup():
    """Children and attributes alike."""
    made = element("p", "<b>", element("i", "&"), class_='"', stroke_width=2, title=None)
    assert made == '<p class="&quot;" stroke-width="2">&lt;b&gt;<i>&amp;</i></p>'
    assert isinstance(made, Markup)


def test_the_command_writes_a_page_and_refuses_another_name(tmp_path):
    """An option for the store is not taken for a file."""
    (tmp_path / "run").mkdir()
    refused = CliRunner().invoke(app, ["report", str(tmp_path / "run"), "-o", "endpoint_url=http://127.0.0.1"])
    assert refused.exit_code == 2
    assert "--option" in refused.stderr
    empty = CliRunner().invoke(app, ["report", str(tmp_path / "run"), "-o", str(tmp_path / "r.html")])
    assert empty.exit_code == 1
    assert not (tmp_path / "r.html").exists()
