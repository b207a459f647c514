"""The report of the recipes: one HTML file with everything inside."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from usconf.recipes.report import Report

Image = pytest.importorskip("PIL.Image")


def pictures(page):
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.array(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def cells(page):
    return re.findall(r"<t[hd]>(.*?)</t[hd]>", page)


def test_page_needs_nothing_else(tmp_path):
    report = Report("Scores & <maps>")
    report.heading("One")
    report.heading("Inside", 3)
    report.text("first\n\nsecond <b>")
    report.table([{"a": 1}])
    report.picture(np.zeros((4, 5)))
    path = report.write(tmp_path / "new" / "report.html")
    page = path.read_text(encoding="utf-8")
    assert list(path.parent.iterdir()) == [path]
    assert not re.search(r"https?://|<script|<link|url\(", page)
    assert "Scores &amp; &lt;maps&gt;" in page and "<p>second &lt;b&gt;</p>" in page
    assert "<h2>One</h2>" in page and "<h3>Inside</h3>" in page


def test_table_shows_numbers_as_told():
    report = Report("")
    rows = [
        {"name": "a<b", "value": 0.12345, "count": 3},
        {"name": "c", "value": float("nan"), "p": 0.00004},
        {"name": "d", "value": None, "p": np.float32(0.5)},
    ]
    report.table(rows, caption="Some & all", digits=2)
    assert cells(report.html()) == [
        *("name", "value", "count", "p"),
        *("a&lt;b", "0.12", "3", "-"),
        *("c", "-", "-", "4.0e-05"),
        *("d", "-", "-", "0.50"),
    ]
    assert "<caption>Some &amp; all</caption>" in report.html()


def test_pictures_keep_their_pixels(rng):
    gray = rng.integers(0, 256, (6, 7), dtype=np.uint8)
    colour = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    report = Report("")
    report.picture(gray, "gray")
    report.pictures([(colour, "colour"), (gray > 99, "mask")], columns=2)
    report.picture(np.array([[-1.0, 0.0, 0.5], [1.0, 2.0, np.nan]]))
    shown = pictures(report.html())
    assert np.array_equal(shown[0], gray)
    assert np.array_equal(shown[1], colour)
    assert np.array_equal(shown[2], 255 * (gray > 99))
    assert shown[3].tolist() == [[0, 0, 128], [255, 255, 0]]
    assert "repeat(2, " in report.html() and "<figcaption>colour</figcaption>" in report.html()


def test_small_pictures_grow_by_whole_steps():
    report = Report("")
    report.picture(np.zeros((10, 100)))
    assert 'style="width:300px"' in report.html()


def test_matplotlib_figure():
    figures = pytest.importorskip("matplotlib.figure")
    figure = figures.Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1])
    report = Report("")
    report.picture(figure, "line")
    (shown,) = pictures(report.html())
    assert shown.ndim == 3 and shown.min() < 100 and f"width:{shown.shape[1]}px" in report.html()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: r.table([]), ValueError, "rows must hold at least one row"),
        (lambda r: r.heading("x", 1), ValueError, "level must be 2 or 3, got 1"),
        (lambda r: r.pictures([], columns=0), ValueError, "columns must be at least 1, got 0"),
        (lambda r: r.picture(np.zeros((2, 3, 4))), ValueError, r"got \(2, 3, 4\)"),
        (lambda r: r.picture([[1]]), TypeError, "picture must be a NumPy array"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call(Report(""))
