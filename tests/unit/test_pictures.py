"""Charts in a terminal and pictures by matplotlib."""

from __future__ import annotations

import sys
from xml.etree import ElementTree

import pytest
from drawn import CASES, curve

from remote_ckpt.pictures import figure, text
from remote_ckpt.pictures.files import PictureError, write_whole


def lines(curves, **options):
    return [line.plain for line in text.chart(curves, **{"width": 60, "height": 9, **options})]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("unicode", [True, False])
def test_a_chart_fits_the_terminal_whatever_the_scores_are(case, unicode):
    """All of it, the legend aside."""
    shown = lines(CASES[case], unicode=unicode)
    chart = [line for line in shown if line.strip()[:1] in ("|", "│", "+", "└") or "|" in line[:12] or "│" in line[:12]]
    assert all(len(line) <= 60 for line in chart)
    assert unicode or all(line.isascii() for line in shown)


def test_a_chart_marks_improvements_other_scores_and_the_best_so_far():
    """And tells the best."""
    assert lines([curve(0.0, 1.0, 0.5, 0.5, 0.5)], width=30, height=5, unicode=False) == [
        "val_accuracy by epoch (higher is better)",
        "1.0 |      o------------------",
        "    |",
        "0.5 |            .     .     .",
        "    |",
        "0.0 |o-----",
        "    +-------------------------",
        "     epoch 1                 5",
        "o s3://bucket/run  best 1 at epoch 2, 2 improvements",
        "  5 checkpoints, 5.0 kB; in the bucket after 2.0 s (median), 2.0 s (longest)",
    ]


def test_runs_are_told_apart_without_colour():
    """By shapes, or by letters when they are many; the best run is named first."""
    three = lines([curve(score, run=f"run-{score}") for score in (0.1, 0.3, 0.2)])
    assert [line[:9] for line in three if "best" in line] == ["● run-0.3", "▲ run-0.2", "■ run-0.1"]
    many = [line for line in lines(CASES["twenty runs"]) if "best" in line]
    assert "".join(line[0] for line in many) == "abcdefghijklmnopqrst"


def test_runs_that_are_not_drawn_are_told():
    """There are 52 letters."""
    assert lines(CASES["sixty runs"])[-1] == "  and 8 more that are not drawn"


def test_scores_that_cannot_be_drawn_are_told():
    """A chart of nothing but these is its legend."""
    shown = lines(CASES["not numbers"])
    assert len(shown) == 3
    assert "best inf at epoch 3, 1 improvement, 4 scores no number, or infinite" in shown[1]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["png", "svg"])
@pytest.mark.filterwarnings("error")
def test_a_picture_is_drawn_whatever_the_scores_are(case, kind, tmp_path):
    """Without a warning."""
    target = tmp_path / "pictures" / f"picture.{kind}"
    target.parent.mkdir()
    figure.save(figure.draw(CASES[case]), target)
    if kind == "png":
        assert target.read_bytes().startswith(b"\x89PNG")
    else:
        assert ElementTree.parse(target).getroot().tag.endswith("svg")
    assert list(target.parent.iterdir()) == [target]


def texts_of(drawn):
    found = drawn.findobj(lambda artist: hasattr(artist, "get_text"))
    return list(dict.fromkeys(each.get_text() for each in found))


def test_a_picture_names_the_best_and_the_runs():
    """In the order of their standing, and nothing in a name is a formula."""
    assert "best 0.7 at epoch 2" in texts_of(figure.draw([curve(0.5, 0.7)]))
    shown = texts_of(figure.draw(CASES["formula"]))
    assert [each for each in shown if "best" in each] == [
        "$\\frac{\nbest 0.5 at epoch 1",
        "_hidden $x$\nbest 0.4 at epoch 1",
    ]


def test_a_picture_of_too_many_runs_shows_the_best_and_says_so():
    """As many as can be told apart."""
    assert "the best 21 of 60 runs" in texts_of(figure.draw(CASES["sixty runs"]))


def test_drawing_leaves_pyplot_alone():
    """It may be the caller's, with a state of its own."""
    before = "matplotlib.pyplot" in sys.modules
    figure.draw([curve(0.5)])
    assert ("matplotlib.pyplot" in sys.modules) is before


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    """And what works without."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PictureError, match=r"pip install matplotlib.*in the terminal"):
        figure.draw([curve(0.5)])


def test_a_file_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path):
    """What was there stays."""
    with pytest.raises(PictureError, match=r"missing/picture.png could not be written: No such file"):
        write_whole(tmp_path / "missing" / "picture.png", b"data")
    taken = tmp_path / "pictures" / "folder.png"
    taken.mkdir(parents=True)
    with pytest.raises(PictureError):
        write_whole(taken, b"data")
    assert list(taken.parent.iterdir()) == [taken]
