"""Mean IoU against loops, and the SavedModel against the Keras model."""

import keras
import numpy as np
import pytest
from PIL import Image

from kanets import cli, evaluation, export, zoo
from kanets.evaluation.segmentation import confusion, figures
from tests.backends import BACKEND
from tests.photos import write_streets

NAMES = ["blue", "red"]
SIZE = (8, 12)


def by_colour(size=(None, None)):
    """A segmenter that is right but for pictures' noise: red against blue."""
    inputs = keras.Input((*size, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(inputs)
    x = keras.layers.Conv2D(2, 1, name="predictions")(x)
    outputs = keras.layers.Softmax()(x)
    model = keras.Model(inputs, outputs, name="by_colour")
    kernel = np.zeros((1, 1, 3, 2), "float32")
    kernel[0, 0, 2, 0] = kernel[0, 0, 0, 1] = 4.0
    model.get_layer("predictions").set_weights([kernel, np.zeros(2)])
    return model


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    return write_streets(tmp_path_factory.mktemp("streets"), 2, 3, SIZE)


@pytest.fixture
def model(tmp_path):
    return zoo.save_model(by_colour(), tmp_path / "model", NAMES)


def test_confusion_by_hand():
    labels = np.array([[0, 0, 1], [2, 1, 9]])
    found = np.array([[0, 1, 1], [2, 0, 0]])
    counts = confusion(labels, found, 4, ignore_label=9)
    assert counts.tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 0],
    ]
    result = figures(counts, ["a", "b", "c", "absent"])
    assert result["iou"] == {"a": 1 / 3, "b": 1 / 3, "c": 1.0}
    assert result["mean_iou"] == pytest.approx(5 / 9)
    assert result["pixel_accuracy"] == pytest.approx(3 / 5)


def test_figures_are_those_of_keras():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 6, (3, 7, 11))
    found = generator.integers(0, 5, (3, 7, 11))
    metric = keras.metrics.MeanIoU(5, ignore_class=5)
    metric.update_state(labels, found)
    ours = figures(confusion(labels, found, 5, 5), list("abcde"))
    assert ours["mean_iou"] == pytest.approx(float(metric.result()), abs=1e-6)


def test_evaluates_and_predicts(streets, model, tmp_path, capsys):
    result = evaluation.evaluate(model, streets, ignore_label=7)
    assert result["pictures"] == 3
    assert result["mean_iou"] > 0.95 and set(result["iou"]) == set(NAMES)
    command = ["evaluate", str(model), "--data", str(streets)]
    assert cli.main([*command, "--ignore-label", "7"]) == 0
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed.startswith(f"mean IoU {result['mean_iou']:.4f}")
    assert cli.main(command) == 1
    assert "holds [7]" in capsys.readouterr().err

    pictures = streets / "val" / "images"
    to = tmp_path / "seen"
    assert (
        cli.main(["predict", str(model), str(pictures), "--to", str(to)]) == 0
    )
    assert len(capsys.readouterr().out.splitlines()) == 3
    labels = np.array(Image.open(streets / "val" / "labels" / "0.png"))
    found = np.array(Image.open(to / "0_labels.png"))
    assert np.mean(found[:, 1:] == labels[:, 1:]) > 0.95
    with Image.open(to / "0_overlay.png") as overlay:
        assert overlay.size == SIZE[::-1]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="exporting is TensorFlow's")
def test_the_savedmodel_says_the_same(streets, model, tmp_path):
    bundle = tmp_path / "served"
    command = ["export", str(model), "--to", str(bundle)]
    assert cli.main([*command, "--image-size", *map(str, SIZE)]) == 0
    expected = evaluation.evaluate(model, streets, ignore_label=7)
    actual = evaluation.evaluate(bundle, streets, ignore_label=7)
    assert actual == expected
    # Pictures that are left out are left out of both.
    broken = write_streets(tmp_path / "broken", 1, 3, SIZE)
    (broken / "val" / "images" / "1.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="1 file"):
        kept = evaluation.evaluate(
            bundle, broken, ignore_label=7, on_error="skip", batch_size=1
        )
    assert kept["pictures"] == 2 and kept["mean_iou"] > 0.95
    picture = streets / "val" / "images" / "0.png"
    [(_, ranked)] = evaluation.predict(bundle, [picture], to=tmp_path / "seen")
    [(_, expected)] = evaluation.predict(model, [picture], to=tmp_path / "mine")
    assert ranked == expected
    assert (tmp_path / "seen" / "0_labels.png").read_bytes() == (
        tmp_path / "mine" / "0_labels.png"
    ).read_bytes()
    assert export.is_segmenter(zoo.load_model(model))


def test_without_names_and_without_what_is_bad(streets, tmp_path):
    by_colour().save(tmp_path / "m.keras")
    good = streets / "val" / "images" / "0.png"
    (tmp_path / "bad.png").write_bytes(b"no picture")
    bad = []
    [(path, ranked)] = evaluation.iter_predict(
        tmp_path / "m.keras",
        [tmp_path / "bad.png", good],
        to=tmp_path / "seen",
        on_bad=lambda *fault: bad.append(fault),
    )
    assert path == good and {name for name, _ in ranked} == {"0", "1"}
    assert bad == [(tmp_path / "bad.png", "not a picture of a known format")]


def test_misuse_is_named(streets, model, tmp_path, capsys):
    with pytest.raises(
        ValueError, match="options of segmentation are.*`ignore_label`.*`pages`"
    ):
        evaluation.evaluate(model, streets, pages=3)
    empty = write_streets(tmp_path / "empty", 1, 1, SIZE)
    nothing = Image.fromarray(np.full(SIZE, 7, np.uint8))
    nothing.save(empty / "val" / "labels" / "0.png")
    with pytest.raises(ValueError, match="of ignore_label=7 alone"):
        evaluation.evaluate(model, empty, ignore_label=7)
    (empty / "classes.txt").write_text("red\nblue\n")
    with pytest.raises(
        ValueError, match=r"Received: \['blue', 'red'\], not \['red', 'blue'\]"
    ):
        evaluation.evaluate(model, empty, ignore_label=7)
    picture = streets / "val" / "images" / "0.png"
    with pytest.raises(ValueError, match="`to` must.*segmenter. Rec.* to=None"):
        evaluation.predict(model, [picture])
    assert cli.main(["predict", str(model), str(picture)]) == 1
    err = capsys.readouterr().err
    assert "`--to` must be given, the folder for the label maps" in err
    assert err.endswith(f"Received: no --to for '{model}'\n")
    twin = tmp_path / "twin" / "0.png"
    twin.parent.mkdir()
    twin.write_bytes(picture.read_bytes())
    with pytest.raises(ValueError, match=r"must differ. Received: \['0'\]"):
        evaluation.predict(model, [picture, twin], to=tmp_path / "seen")
