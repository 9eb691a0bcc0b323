"""Accuracy and predictions of models that do not end in a softmax."""

import keras
import numpy as np
import pytest

from kanets import evaluation, zoo
from tests.photos import write_photos

NAMES = ["blue", "red"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), 2, 4, (6, 8), "png")


def by_colour(units, activation):
    """Knows red from blue; one unit says how red it is."""
    inputs = keras.Input((6, 8, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    head = keras.layers.Dense(units, activation=activation, name="predictions")
    model = keras.Model(inputs, head(x), name="by_colour")
    kernel = np.array([[-1, 1], [0, 0], [1, -1]], "float32")[:, -units:]
    head.set_weights([kernel, np.zeros(units)])
    return model


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
@pytest.mark.parametrize("units", [1, 2])
def test_heads(photos, tmp_path, units, activation):
    if units == 1 and activation == "softmax":
        pytest.skip("a softmax of one output is 1")
    folder = zoo.save_model(
        by_colour(units, activation), tmp_path / "model", NAMES
    )
    assert evaluation.evaluate(folder, photos)["accuracy"] == 1.0
    for label in NAMES:
        picture = photos / "val" / label / "0.png"
        [(_, ranked)] = evaluation.predict(folder, [picture])
        assert ranked[0][0] == label and 0.5 < ranked[0][1] < 1
        if units == 1 or activation != "sigmoid":
            assert sum(score for _, score in ranked) == pytest.approx(1)


def test_one_output_has_two_names(photos, tmp_path):
    folder = zoo.save_model(
        by_colour(1, "sigmoid"), tmp_path / "model", [*NAMES, "green"]
    )
    with pytest.raises(ValueError, match="3 names of 'by_colour' with 2"):
        evaluation.evaluate(folder, photos)


def test_a_folder_does_not_hide_an_entry(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entry = zoo.list_models(task="classification")[0]
    (tmp_path / entry.name).mkdir()
    (tmp_path / entry.name / "saved_model.pb").write_bytes(b"")
    assert evaluation.is_savedmodel(entry.name)
    model, _ = evaluation._open(entry.name)
    assert model.count_params() == entry.parameters
