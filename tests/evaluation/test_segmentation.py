"""Mean IoU against loops, and the SavedModel against the Keras model."""

import keras
import numpy as np
import pytest
from PIL import Image

from kanets import cli, evaluation, export, zoo
from kanets.evaluation import segmentation
from kanets.evaluation.segmentation import confusion, figures
from kanets.evaluation.views import Views
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
        width, height = overlay.size  # with a legend below
        assert width >= SIZE[1] and height > SIZE[0]


@pytest.mark.thorough
@pytest.mark.skipif(BACKEND != "tensorflow", reason="exporting is TensorFlow's")
def test_the_savedmodel_says_the_same(streets, model, tmp_path):
    bundle = tmp_path / "served"
    command = ["export", str(model), "--to", str(bundle)]
    assert cli.main([*command, "--image-size", *map(str, SIZE)]) == 0
    with pytest.raises(ValueError, match="for a Keras model, .* flip=True"):
        evaluation.evaluate(bundle, streets, ignore_label=7, flip=True)
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


def seen_by_loops(model, picture, scales, flip, window):
    """Mean of the views of one picture, pixel by pixel."""
    height, width, _ = picture.shape
    views = []
    for scale in scales:
        size = int(height * scale), int(width * scale)
        scaled = Image.fromarray(picture).resize(
            size[::-1], Image.Resampling.BILINEAR
        )
        for mirrored in [False, True] if flip else [False]:
            x = np.array(scaled)
            x = x[:, ::-1] if mirrored else x
            found = slid(model, x, window)
            found = found[:, ::-1] if mirrored else found
            views.append(np.zeros((height, width, found.shape[-1])))
            for i in range(height):
                for j in range(width):
                    views[-1][i, j] = at(
                        found,
                        (i + 0.5) * size[0] / height - 0.5,
                        (j + 0.5) * size[1] / width - 0.5,
                    )
    return sum(views) / len(views)


def slid(model, x, window):
    if window is None:
        return model(x)
    rows, columns = window
    height, width = max(len(x), rows), max(x.shape[1], columns)
    padded = np.full((height, width, 3), 127.5)
    padded[: len(x), : x.shape[1]] = x
    total, count = 0.0, np.zeros((height, width, 1))
    for top in starts(height, rows):
        for left in starts(width, columns):
            place = np.s_[top : top + rows, left : left + columns]
            part = np.zeros((height, width, 2))
            part[place] = model(padded[place])
            total = total + part
            count[place] += 1
    assert count.min() >= 1
    return (total / count)[: len(x), : x.shape[1]]


def starts(length, window):
    """By hand, for the lengths and windows of the test."""
    return {
        (8, 5): [0, 3],  # three to go, at most 3 at once
        (12, 7): [0, 2, 5],  # five to go, at most 4: 2.5 is rounded to even
        (5, 5): [0],
        (7, 7): [0],
        (16, 5): [0, 3, 6, 8, 11],  # eleven to go, 2.75 each
        (24, 7): [0, 3, 7, 10, 14, 17],  # seventeen, 3.4
    }[length, window]


def at(maps, y, x):
    """Bilinear between the centres of cells, clamped to them."""
    total = 0.0
    for i in range(maps.shape[0]):
        for j in range(maps.shape[1]):
            near = [
                max(0.0, 1 - abs(min(max(place, 0), count - 1) - cell))
                for place, count, cell in (
                    (y, maps.shape[0], i),
                    (x, maps.shape[1], j),
                )
            ]
            total = total + near[0] * near[1] * maps[i, j]
    return total


@pytest.mark.parametrize(
    ("scales", "flip", "window"),
    [
        ((1.0,), False, None),
        ((1.0,), True, None),
        ((0.5, 2.0), False, None),
        ((1.0,), False, (5, 7)),
        ((0.5, 1.0, 2.0), True, (5, 7)),
    ],
)
def test_views_are_the_mean_of_each(scales, flip, window):
    generator = np.random.default_rng(3)
    kernel = generator.normal(0, 0.02, (3, 5, 3, 2))

    def seen(x):
        """Neither mirrored nor moved alike: it looks beside, and where."""
        x = np.asarray(x, "float64")
        padded = np.pad(x, [(1, 1), (2, 2), (0, 0)])
        out = np.zeros((*x.shape[:2], 2))
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                part = padded[i : i + 3, j : j + 5]
                out[i, j] = np.einsum("abc,abcd->d", part, kernel) + [i, j]
        return out

    pictures = generator.integers(0, 256, (2, *SIZE, 3), "uint8")
    found = Views(scales, flip, window).probabilities(
        lambda images: np.stack([seen(x) for x in images]).astype("float32"),
        pictures.astype("float32"),
    )
    assert found.dtype == "float32" and found.shape == (2, *SIZE, 2)
    for picture, maps in zip(pictures, found, strict=True):
        expected = seen_by_loops(seen, picture, scales, flip, window)
        np.testing.assert_allclose(maps, expected, atol=1e-4)


def test_options_of_views(streets, model, tmp_path, capsys):
    plain = evaluation.evaluate(model, streets, ignore_label=7)
    options = {"scales": [0.25, 0.5], "flip": True, "window": (6, 6)}
    several = evaluation.evaluate(model, streets, ignore_label=7, **options)
    assert 0.5 < several["mean_iou"] < plain["mean_iou"]
    flags = ["--scales", "0.25,0.5", "--flip", "--window", "6", "6"]
    command = ["evaluate", str(model), "--data", str(streets), *flags]
    assert cli.main([*command, "--ignore-label", "7"]) == 0
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed.startswith(f"mean IoU {several['mean_iou']:.4f}")
    picture = streets / "val" / "images" / "0.png"
    for folder, given in ((tmp_path / "one", []), (tmp_path / "all", flags)):
        command = ["predict", str(model), str(picture), "--to", str(folder)]
        assert cli.main([*command, *given]) == 0
    one, other = (
        np.array(Image.open(tmp_path / name / "0_labels.png"))
        for name in ("one", "all")
    )
    assert one.shape == other.shape == SIZE and np.any(one != other)


def test_views_of_a_model_of_fixed_size(streets, tmp_path):
    fixed = zoo.save_model(by_colour((4, 6)), tmp_path / "fixed", NAMES)
    whole = evaluation.evaluate(fixed, streets, ignore_label=7)
    twice = evaluation.evaluate(fixed, streets, ignore_label=7, scales=[2.0])
    slid = evaluation.evaluate(fixed, streets, ignore_label=7, window=(4, 6))
    assert slid["mean_iou"] > 0.95 > whole["mean_iou"] > 0.7
    assert twice["mean_iou"] > 0.7
    # Through windows, pictures are seen at their own size.
    picture = streets / "val" / "images" / "0.png"
    for window, size in ((None, (4, 6)), ((4, 6), SIZE)):
        to = tmp_path / str(size)
        evaluation.predict(fixed, [picture], to=to, window=window)
        assert np.array(Image.open(to / "0_labels.png")).shape == size
    with pytest.raises(ValueError, match=r"must be the size.*window=\(6, 6\)"):
        evaluation.evaluate(fixed, streets, window=(6, 6))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"scales": []}, r"list of positive numbers. Received: scales=\[\]"),
        ({"scales": [1.0, 0.0]}, r"scales=\[1.0, 0.0\]"),
        ({"scales": [True]}, r"scales=\[True\]"),
        ({"scales": 0.5}, "scales=0.5"),
        ({"window": (3, 0)}, r"`window` must be .* window=\(3, 0\)"),
    ],
)
def test_bad_views_are_named(streets, model, options, text):
    with pytest.raises(ValueError, match=text):
        evaluation.evaluate(model, streets, ignore_label=7, **options)


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


def test_one_channel_is_no_segmenter():
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Conv2D(1, 1, activation="sigmoid")(inputs)
    model = keras.Model(inputs, outputs, name="road")
    with pytest.raises(ValueError, match="'road' with outputs of 1 channel"):
        segmentation.label_maps(model, np.zeros((1, 8, 8, 3), "float32"))


def test_views_of_logits_are_means_of_probabilities():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 20)(inputs)
    kernel = keras.initializers.RandomNormal(seed=0)
    x = keras.layers.Conv2D(3, 3, padding="same", kernel_initializer=kernel)(x)
    logits = keras.layers.Identity()(keras.layers.Conv2D(3, 1)(x))
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 12, 16, 3))
    one, other = (
        segmentation.label_maps(
            keras.Model(inputs, outputs),
            pictures.astype("float32"),
            Views((0.5, 1.0), True),
        )
        for outputs in (logits, keras.layers.Softmax()(logits))
    )
    np.testing.assert_array_equal(one, other)
    assert len(np.unique(one)) > 1
