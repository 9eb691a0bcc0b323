"""Pictures: that they are drawn, and of what was given."""

import pytest
from PIL import Image

from kanets.visualize import plot_curves


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss,val_accuracy\n1,2.0,0.1\n2,1.0,0.4\n3,0.5,\n")
    return path


def test_curves(log, tmp_path, monkeypatch):
    drawn = {}
    from matplotlib.axes import Axes

    original = Axes.plot

    def plot(self, x, y, *style, label, **arguments):
        drawn[label] = (x, y)
        return original(self, x, y, *style, label=label, **arguments)

    monkeypatch.setattr(Axes, "plot", plot)
    path = plot_curves({"a": log}, tmp_path / "curves.png")
    assert drawn == {"a": ([1, 2], [0.1, 0.4])}
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.size == (720, 480)


def test_a_missing_column_is_named(log, tmp_path):
    with pytest.raises(ValueError, match="'top5'.*log.csv.*'val_accuracy'"):
        plot_curves({"a": log}, tmp_path / "curves.png", column="top5")
