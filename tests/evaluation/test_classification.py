"""Accuracy and predictions of models that do not end in a softmax."""

import shutil

import keras
import numpy as np
import pytest

from kanets import data, evaluation, zoo
from kanets.evaluation import classification, files, sources
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


def test_outputs_that_are_not_finite_are_refused(photos, tmp_path):
    model = by_colour(2, None)
    model.get_layer("predictions").kernel.assign(np.full((3, 2), 3e38))
    folder = zoo.save_model(model, tmp_path / "model", NAMES)
    message = "outputs of a model must be finite.*'by_colour'"
    with pytest.raises(ValueError, match=message):
        evaluation.evaluate(folder, photos)
    with pytest.raises(ValueError, match=message):
        evaluation.predict(folder, [photos])


def test_a_folder_does_not_hide_an_entry(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entry = zoo.list_models(task="classification")[0]
    (tmp_path / entry.name).mkdir()
    (tmp_path / entry.name / "saved_model.pb").write_bytes(b"")
    assert evaluation.is_savedmodel(entry.name)
    model, _ = evaluation._open(entry.name)
    assert model.count_params() == entry.parameters


@pytest.fixture
def model(tmp_path):
    return zoo.save_model(by_colour(2, "softmax"), tmp_path / "model", NAMES)


def test_a_model_of_keras_is_taken_as_it_is(photos):
    model = by_colour(2, "softmax")
    with pytest.raises(ValueError, match="Class names must say"):
        evaluation.evaluate(model, photos)
    model.class_names = NAMES
    assert evaluation.evaluate(model, photos)["accuracy"] == 1.0
    [(_, ranked)] = evaluation.predict(model, [photos / "val/red/0.png"])
    assert ranked[0][0] == "red"


@pytest.mark.parametrize("top_k", [0, -1, 1.5, "2", True, None])
def test_top_k_is_a_positive_integer(photos, model, top_k):
    with pytest.raises(ValueError, match=f"positive.*: top_k={top_k!r}$"):
        evaluation.predict(model, [photos], top_k=top_k)


def test_top_k_above_all_is_all(photos, model):
    for top_k, count in ((1, 1), (2, 2), (9, 2)):
        for _, ranked in evaluation.predict(model, [photos], top_k=top_k):
            assert len(ranked) == count


def test_results_come_as_pictures_are_read(photos, model, monkeypatch):
    monkeypatch.setattr(classification, "_PART", 3)
    seen, read = [], files.read_picture

    def record(path):
        seen.append(path)
        return read(path)

    monkeypatch.setattr(files, "read_picture", record)
    results = evaluation.iter_predict(model, [photos])
    assert not seen
    path, _ = next(results)
    assert len(seen) == 3 and path == sorted(seen)[0]
    assert 1 + len(list(results)) == len(seen) == 12
    assert evaluation.predict(model, [photos])[0][0] == path


def test_bad_pictures_stop_or_are_left_out(photos, model, tmp_path):
    good = (photos / "val" / "red" / "0.png").read_bytes()
    for name in "acd":
        (tmp_path / f"{name}.png").write_bytes(good)
    (tmp_path / "b.png").write_bytes(good[:60])
    (tmp_path / "e.png").write_bytes(b"")
    results = evaluation.iter_predict(model, [tmp_path])
    assert next(results)[0] == tmp_path / "a.png"
    with pytest.raises(data.BadPicturesError, match="b.png: damaged"):
        next(results)
    bad = []
    results = evaluation.iter_predict(
        model, [tmp_path], on_bad=lambda *fault: bad.append(fault)
    )
    assert [path.stem for path, _ in results] == ["a", "c", "d"]
    assert [path.stem for path, _ in bad] == ["b", "e"]
    assert bad[1][1] == "empty file (0 bytes)"


@pytest.mark.parametrize("cut", [1, 6, 12])
def test_a_png_without_its_end_is_none_of_a_bundle(
    photos, tmp_path, monkeypatch, cut
):
    good = photos / "val" / "red" / "0.png"
    bad = tmp_path / "bad.png"
    bad.write_bytes(good.read_bytes()[:-cut])
    assert files.read(bad).shape == (6, 8, 3)  # by Pillow
    assert files.read_file(good) == good.read_bytes()
    fetched = sources.Address("https://example.org/bad.png")
    monkeypatch.setattr(fetched, "content", bad.read_bytes)
    for source in (bad, fetched):
        with pytest.raises(data.BadPicturesError, match="bad.png: damaged"):
            files.read_file(source)
    with pytest.warns(UserWarning, match="bad.png': damaged"):
        assert files.jpeg_or_png([bad, good], "skip") == [1]


def test_classes_without_names_are_numbers(photos, tmp_path):
    by_colour(2, "softmax").save(tmp_path / "m.keras")
    picture = photos / "val" / "red" / "0.png"
    [(_, ranked)] = evaluation.predict(tmp_path / "m.keras", [picture])
    assert [name for name, _ in ranked] == ["1", "0"]
    with pytest.raises(ValueError, match="Class names must.*m.keras' without"):
        evaluation.evaluate(tmp_path / "m.keras", photos)


def test_one_picture_is_a_path_alone(photos, model):
    picture = photos / "val/red/0.png"
    expected = list(evaluation.predict(model, [picture]))
    for one in (picture, str(picture)):
        assert list(evaluation.predict(model, one)) == expected


def test_what_is_hidden_and_folders_are_no_pictures(tmp_path, photos, model):
    shutil.copytree(photos / "val/red", tmp_path / "red")
    shutil.copytree(photos / "val/red", tmp_path / ".thumbs")
    (tmp_path / "x.png").mkdir()
    found = files.picture_files([tmp_path])
    assert found and all(path.parent.name == "red" for path in found)
