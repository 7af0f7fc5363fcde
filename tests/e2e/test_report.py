"""`remote-ckpt report`, opened in a real browser."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from browser import browser
from drawn import curve
from records import EPOCH, seal, terms
from typer.testing import CliRunner

from remote_ckpt.cli._app import app
from remote_ckpt.location import Location
from remote_ckpt.pictures.curves import named
from remote_ckpt.pictures.page import page as page_of
from remote_ckpt.run import Run
from remote_ckpt.saving.spool import Spool

HOSTILE = "\"'><script>document.title='owned'</script><img src=http://127.0.0.1:9/ onerror=alert(1)>"


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


@contextlib.contextmanager
def open_page(chromium, path, **settings):
    """Open a file; afterwards it has asked for nothing else, complained of nothing, and popped up nothing."""
    context = chromium.new_context(**{"viewport": {"width": 1100, "height": 900}, **settings})
    opened = context.new_page()
    seen = []
    opened.on("request", lambda request: seen.append(request.url))
    opened.on("console", lambda message: seen.append(message.text))
    opened.on("pageerror", lambda error: seen.append(str(error)))
    opened.on("dialog", lambda dialog: (seen.append(dialog.message), dialog.dismiss()))
    opened.goto(path.as_uri())
    yield opened
    assert seen == [path.as_uri()]
    context.close()


@pytest.fixture
def report(tmp_path):
    """Two real runs, and the page about them."""
    for name, scores in {"one": (0.5, 0.7, 0.6), "two": (0.4, 0.8, 0.9)}.items():
        spool = Spool(Location.parse(tmp_path / "sweep" / name))
        for number, score in enumerate(scores):
            rules = terms(monitor="val_accuracy", mode="max")
            seal(spool, number, score, id=f"{name}{number}", rules=rules, logs={"val_accuracy": score})
        spool.close()
        Run(tmp_path / "sweep" / name).recover()
    target = tmp_path / "report.html"
    result = CliRunner().invoke(app, ["report", str(tmp_path / "sweep"), "-o", str(target)])
    assert result.exit_code == 0
    return target


def test_the_page_shows_the_leaderboard_the_scores_and_the_timeline(chromium, report):
    """The best run first; a mark tells its epoch and score."""
    with open_page(chromium, report) as page:
        assert page.title() == page.locator("h1").inner_text() == f"Checkpoints of {report.parent / 'sweep'}"
        rows = page.locator("section > .wide tbody tr").all_inner_texts()
        assert [row.split("\t")[1:4] for row in rows] == [["two", "0.9", "3"], ["one", "0.7", "2"]]
        charts = page.locator("svg.chart")
        assert charts.evaluate_all("all => all.map(one => one.getBoundingClientRect().width > 700)") == [True, True]
        rings = page.locator("svg.chart .ring title").all_text_contents()
        assert sorted(rings) == ["epoch 2: 0.7", "epoch 3: 0.9"]
        assert charts.nth(1).locator("circle").count() == 6


def test_better_scores_are_drawn_higher_and_later_ones_further_right(chromium, report):
    """What a person reads from it."""
    with open_page(chromium, report) as page:
        two = page.locator("svg.chart").nth(0).locator(".look-0 circle:not(.ring)")
        places = two.evaluate_all("all => all.map(one => [one.cx.baseVal.value, one.cy.baseVal.value])")
        improvements = places[:3]
        assert [x for x, _ in improvements] == sorted(x for x, _ in improvements)
        assert [y for _, y in improvements] == sorted((y for _, y in improvements), reverse=True)


def test_the_page_follows_the_screen_to_light_and_dark(chromium, report):
    """Paper, ink and lines change together, and stay readable."""
    style = "getComputedStyle(document.body)"
    look = f"one => [{style}.backgroundColor, {style}.color, getComputedStyle(one).stroke]"
    shown = {}
    for scheme in ("light", "dark"):
        with open_page(chromium, report, color_scheme=scheme) as page:
            shown[scheme] = page.locator("svg.chart .best").first.evaluate(look)
    assert shown["light"][0] == "rgb(255, 255, 255)"
    for paper, *inks in shown.values():
        assert all(contrast(paper, ink) > 3 for ink in inks)
    assert all(light != dark for light, dark in zip(shown["light"], shown["dark"], strict=True))


def contrast(one, other):
    """As the Web Content Accessibility Guidelines define it; 3 is what they ask of lines in a drawing."""
    lights = sorted(luminance(colour) for colour in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour):
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_page_fits_a_narrow_screen(chromium, report):
    """A wide table scrolls by itself."""
    with open_page(chromium, report, viewport={"width": 380, "height": 700}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_a_hostile_name_is_shown_as_text(chromium, tmp_path):
    """Nothing of it runs, loads, or pops up."""
    target = tmp_path / "hostile.html"
    curves = named([curve(0.5, 0.6, run=f"s3://bucket/{HOSTILE}", monitor=HOSTILE), curve(0.4, run="s3://bucket/b")])
    target.write_text(page_of(curves, EPOCH + timedelta(days=1)))
    with open_page(chromium, target) as page:
        assert page.title() == "Checkpoints of s3://bucket"
        assert "<script>document.title='owned'" in page.locator("h2").first.inner_text()
        assert page.locator("script, img").count() == 0


def test_a_script_would_not_run_even_if_it_got_into_the_page(chromium, report):
    """The page's own policy forbids it."""
    source = report.read_text().replace("</main>", "<script>document.title='owned'</script></main>")
    report.write_text(source)
    context = chromium.new_context()
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.title() != "owned"
    context.close()
