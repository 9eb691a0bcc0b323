"""Pictures: that they are drawn, where, and of what was given."""

import sys

import matplotlib.axes
import numpy as np
import pytest
from PIL import Image

from tests.layer_checks import random
from ylg import patterns
from ylg.gan import to_pixels
from ylg.inversion import Inversion
from ylg.visualize import plot_attention, plot_inversion, plot_saliency

QUERIES, KEYS = (6, 10), (3, 5)
SIZE = (12, 30)


@pytest.fixture
def photo():
    return np.tanh(random(*SIZE, 3))


@pytest.fixture
def drawn(monkeypatch):
    """The arrays that were shown, with the axes they are on."""
    shown = []
    original = matplotlib.axes.Axes.imshow

    def imshow(self, x, **arguments):
        shown.append((self, np.array(x)))
        assert arguments["extent"] == (0, SIZE[1], SIZE[0], 0)
        return original(self, x, **arguments)

    monkeypatch.setattr(matplotlib.axes.Axes, "imshow", imshow)
    return shown


def heads():
    chosen = [
        patterns.right_floor(QUERIES, KEYS, alignment="spatial"),
        patterns.left_repetitive(QUERIES, KEYS, alignment="spatial"),
        patterns.dense(QUERIES, KEYS),
    ]
    weights = []
    for head, pattern in enumerate(chosen):
        weight = np.abs(random(1, *pattern.neighbours.shape, seed=head))
        weights.append(np.where(pattern.neighbours >= 0, weight, 0))
    return weights, chosen


def check_png(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.std() > 10
    return pixels


@pytest.mark.parametrize("query, cell", [((7, 19), (3, 6)), ((11, 29), (5, 9))])
def test_attention(query, cell, photo, drawn, tmp_path):
    weights, chosen = heads()
    path = tmp_path / "attention.png"
    assert plot_attention(photo, weights, chosen, query, path) == path
    check_png(path)
    # For each head: photo, what it may see, grey photo, what it looks at.
    assert len(drawn) == 4 * len(chosen)
    for head, pattern in enumerate(chosen):
        row = cell[0] * QUERIES[1] + cell[1]
        (_, whole), (_, may), (_, grey), (panel, looks) = drawn[
            4 * head : 4 * head + 4
        ]
        np.testing.assert_array_equal(whole, to_pixels(photo))
        assert (grey[..., 0] == grey[..., 1]).all()
        seen = pattern.mask()[row].reshape(KEYS)
        np.testing.assert_array_equal(may[..., 1] > 0, seen)
        keys = pattern.neighbours[row]
        best = keys[weights[head][0, row].argmax()]
        assert looks[..., 3].argmax() == best
        np.testing.assert_array_equal(looks[..., 3] > 0, seen)
        largest = weights[head][0, row].max()
        assert panel.get_title() == f"largest weight {largest:.2f}"
        [frame] = panel.patches
        corner = (*frame.get_xy(), frame.get_width(), frame.get_height())
        assert corner == (3 * cell[1], 2 * cell[0], 3, 2)


def test_saliency(photo, drawn, tmp_path):
    maps = np.abs(random(5, *KEYS))
    maps[1] = 0.25  # an even one
    maps[2] = 0.0
    path = plot_saliency(to_pixels(photo), maps, tmp_path / "saliency.png")
    check_png(path)
    titles = list(dict.fromkeys(axes.get_title() for axes, _ in drawn))
    assert titles[:2] == ["photo", "mean of heads"]
    assert titles[3] == "head 1: 0.25 to 0.25"
    assert len(titles) == 7 and len(drawn) == 1 + 2 * 6
    for head, heat in enumerate(maps):
        alpha = drawn[4 + 2 * head][1][..., 3]
        assert alpha.shape == SIZE and np.isfinite(alpha).all()
        if head in (1, 2):
            assert (alpha == 0).all()
            continue
        row, column = np.divmod(alpha.argmax(), SIZE[1])
        brightest = (row * KEYS[0] // SIZE[0], column * KEYS[1] // SIZE[1])
        assert brightest == np.unravel_index(heat.argmax(), KEYS)


def test_inversion(photo, drawn, tmp_path, monkeypatch):
    curves = []
    original = matplotlib.axes.Axes.plot

    def plot(self, x, y, **arguments):
        curves.append((x.tolist(), y.tolist(), arguments["label"]))
        return original(self, x, y, **arguments)

    monkeypatch.setattr(matplotlib.axes.Axes, "plot", plot)
    history = np.array([[4, 6, np.inf], [2, 3, 5]], "float32")
    found = Inversion(
        latents=random(3, 4),
        labels=None,
        images=np.tanh(random(3, *SIZE, 3, seed=1)),
        losses=history[-1],
        history=history,
        saliency=np.abs(random(2, *SIZE)),
    )
    path = plot_inversion(photo, found, tmp_path / "inversion.png", count=2)
    check_png(path)
    titles = [axes.get_title() for axes, _ in drawn]
    assert titles == ["target", "loss 2", "loss 3"]
    np.testing.assert_array_equal(drawn[1][1], to_pixels(found.images[0]))
    assert curves[0][0] == [1, 2] and np.isnan(curves[0][1][0])
    assert curves[-1] == ([1, 2], [4, 2], "best start")


def test_errors(photo, tmp_path):
    weights, chosen = heads()
    path = tmp_path / "none.png"
    for query in ((12, 0), (0, -1)):
        with pytest.raises(ValueError, match=r"query=\(.*picture \(12, 30\)"):
            plot_attention(photo, weights, chosen, query, path)
    with pytest.raises(ValueError, match=r"of one picture. Received: shapes"):
        plot_attention(photo, weights[1:], chosen, (0, 0), path)
    with pytest.raises(ValueError, match=r"of one picture. Received: shapes"):
        plot_attention(photo, [], [], (0, 0), path)
    line = patterns.dense(4)
    with pytest.raises(ValueError, match="from one grid.*dense"):
        weight = np.ones((1, 4, 4))
        plot_attention(photo, [weight], [line], (0, 0), path)
    with pytest.raises(ValueError, match=r"\(heads.*shape=\(12, 30\)"):
        plot_saliency(photo, photo[..., 0], path)
    with pytest.raises(ValueError, match=r"width, 3\).*shape=\(12, 30, 1\)"):
        plot_saliency(photo[..., :1], np.ones((1, 2, 2)), path)
    with pytest.raises(ValueError, match="uint8 or float.*dtype=int64"):
        plot_inversion(photo.astype("int64"), None, path)
    assert not path.exists()


def test_without_matplotlib(photo, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if "matplotlib" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    weights, chosen = heads()
    path = tmp_path / "none.png"
    for draw, arguments in (
        (plot_attention, (photo, weights, chosen, (0, 0), path)),
        (plot_saliency, (photo, np.ones((1, 2, 2)), path)),
        (plot_inversion, (photo, None, path)),
    ):
        with pytest.raises(ImportError, match=r"pip install kanets\[viz\]"):
            draw(*arguments)
