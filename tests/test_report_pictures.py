"""Pictures of where a model errs: what is drawn, and what is left out."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kanets import visualize


@pytest.fixture
def texts(monkeypatch):
    """What is written, as it is drawn."""
    found, original = [], ImageDraw.ImageDraw.text

    def noted(self, place, text, *arguments, **options):
        found.append(text)
        return original(self, place, text, *arguments, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", noted)
    return found


def test_a_matrix_is_blue_where_it_is_right(tmp_path, texts):
    counts = np.array([[8, 2], [0, 5]])
    path = visualize.confusion_matrix(counts, ["ants", "bees"], tmp_path / "m")
    cells = [text for text in texts if text.isdigit()]
    assert cells == ["8", "2", "5"]
    assert texts.count("ants") == texts.count("bees") == 2
    with Image.open(path) as image:
        pixels = np.array(image).astype(int)
    side = 84
    top, left = pixels.shape[0] - 20 - 2 * side, texts_left(pixels)
    corners = [
        pixels[top + row * side + 5, left + column * side + 5]
        for row in range(2)
        for column in range(2)
    ]
    assert corners[0][2] > corners[0][0] + 80, "blue"
    assert corners[1][0] > corners[1][2] + 20, "reddish"
    assert corners[2].tolist() == [255, 255, 255]
    assert corners[3].sum() < corners[0].sum(), "the larger share is darker"


def texts_left(pixels):
    """The first column of the cells: a line from top to bottom."""
    line = (pixels[-100] == (222, 226, 230)).all(-1)
    return int(line.nonzero()[0][0])


def test_of_many_classes_the_confused_are_drawn(tmp_path, texts):
    names = [f"class {i}" for i in range(200)]
    counts = np.diag(np.full(200, 20))
    for i in range(14):
        counts[7 * i, 199 - i] = 5
    counts[49, 50] = 3
    counts[0, 1] = 2
    counts[2, 3] = 1  # no room is left
    path = visualize.confusion_matrix(counts, names, tmp_path / "m.png")
    drawn = {text for text in texts if text.startswith("class ")}
    expected = {7 * i for i in range(14)} | {199 - i for i in range(14)}
    assert {f"class {i}" for i in expected | {1, 50}} == drawn
    assert len(drawn) == 30
    assert any("30 of 200 classes" in text for text in texts)
    assert texts.count("(another)") == 1
    with Image.open(path) as image:
        assert max(image.size) < 1500


def test_large_counts_are_percentages(tmp_path, texts):
    counts = np.array([[75_000, 25_000], [0, 3]])
    visualize.confusion_matrix(counts, ["a", "b"], tmp_path / "m.png")
    assert [text for text in texts if text.isdigit()] == ["75", "25", "100"]
    assert any("percent of the row" in text for text in texts)


def test_counts_fit_the_names(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(2, 3\) for 2 class names"):
        visualize.confusion_matrix(np.ones((2, 3)), ["a", "b"], tmp_path / "m")


def test_the_weakest_bars_come_first_and_are_told(tmp_path, texts):
    rows = [(f"class {i}", i / 100, f"{i} of 100") for i in range(60, 0, -1)]
    path = visualize.class_bars(rows, tmp_path / "b.png", "Accuracy", 0.5)
    drawn = [text for text in texts if text.startswith("class ")]
    assert drawn == [f"class {i}" for i in range(1, 41)]
    assert any("weakest 40 of 60" in text and "40 %" in text for text in texts)
    with Image.open(path) as image:
        assert image.size[0] < 900


def test_only_what_is_whole_is_100_percent(tmp_path, texts):
    rows = [("a", 0.9999, ""), ("b", 1.0, ""), ("c", 0.29, "")]
    visualize.class_bars(rows, tmp_path / "b.png", "Accuracy")
    assert [t for t in texts if t.endswith(" %")] == ["29 %", "99 %", "100 %"]


def test_long_names_are_cut(tmp_path, texts):
    name = "a name that goes on and on, and " * 9
    tile = (np.zeros((4, 9, 3), np.uint8), name, f"98 % {name}", "x.png")
    path = visualize.mistakes_sheet([tile], tmp_path / "s.png", "One mistake")
    cut = [text for text in texts if text.endswith("...")]
    assert len(cut) == 2 and cut[1].startswith("98 % a name")
    with Image.open(path) as image:
        assert image.size[0] < 700
