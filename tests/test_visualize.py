"""Pictures: that they are drawn, and of what was given."""

import keras
import numpy as np
import pytest
from PIL import Image, ImageDraw

from kanets import layers as kanets_layers
from kanets import visualize
from kanets.visualize import attention, plot_curves, sheets
from tests.backends import to_numpy
from tests.layer_checks import random


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


def noise(height, width, seed=0):
    shape = (height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape).astype("uint8")


def written(monkeypatch):
    """The texts that are drawn, in order."""
    texts = []
    original = ImageDraw.ImageDraw.text

    def text(self, place, text, *arguments):
        texts.append(text)
        return original(self, place, text, *arguments)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return texts


def test_palette_is_fixed_and_distinct():
    colours = visualize.palette(256)
    assert colours.dtype == np.uint8 and colours.shape == (256, 3)
    assert colours[:3].tolist() == [[223, 32, 32], [0, 255, 255], [128, 255, 0]]
    np.testing.assert_array_equal(visualize.palette(11), colours[:11])
    apart = np.abs(colours[:, None].astype(int) - colours).sum(-1)
    np.fill_diagonal(apart, 999)
    assert apart.min() > 30 and apart[:20, :20].min() > 120
    luma = colours @ [0.299, 0.587, 0.114]
    assert luma.min() > 50 and luma.max() < 215
    for n in (0, 257, True):
        with pytest.raises(ValueError, match=f"1 to 256. Received: n={n}"):
            visualize.palette(n)


def test_overlay_is_the_mean_of_picture_and_colour():
    picture = noise(5, 7)
    label_map = np.arange(35).reshape(5, 7) % 4 - 1  # -1: without a class
    colours = [[0, 0, 0], [255, 255, 255], [10, 200, 60]]
    found = visualize.overlay(picture, label_map, colours, 0.25, -1)
    assert found.dtype == np.uint8
    for i, j in np.ndindex(5, 7):
        expected = picture[i, j].astype(float)
        if label_map[i, j] >= 0:
            colour = np.array(colours[label_map[i, j]])
            expected = 0.75 * expected + 0.25 * colour
        assert np.abs(found[i, j] - expected).max() <= 0.5
    np.testing.assert_array_equal(picture, noise(5, 7))  # not written upon
    solid = visualize.overlay(picture, label_map + 1, opacity=1)
    np.testing.assert_array_equal(solid, visualize.palette(4)[label_map + 1])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"picture": noise(4, 3)}, r"uint8 \(4, 3, 3\), label map int64 \(3"),
        ({"picture": np.zeros((3, 4, 3))}, "must be uint8.*picture float64"),
        ({"label_map": np.zeros((3, 4))}, "integer.*label map float64"),
        ({"label_map": np.full((3, 4), 2)}, "from 0 to 1.*from 2 to 2, ign"),
        ({"label_map": np.full((3, 4), -1)}, "labels from -1 to -1"),
        ({"opacity": 1.5}, "from 0 to 1. Received: opacity=1.5"),
    ],
)
def test_overlay_refuses(change, message):
    arguments = {
        "picture": noise(3, 4),
        "label_map": np.zeros((3, 4), "int64"),
        "colours": visualize.palette(2),
    }
    with pytest.raises(ValueError, match=message):
        visualize.overlay(**arguments | change)


def test_save_segmentation(tmp_path):
    picture = noise(5, 7)
    label_map = np.arange(35).reshape(5, 7) * 7
    paths = visualize.save_segmentation(
        picture, label_map, tmp_path / "new", "a.b"
    )
    folder = tmp_path / "new"
    assert paths == (folder / "a.b_labels.png", folder / "a.b_overlay.png")
    with Image.open(paths[0]) as labels, Image.open(paths[1]) as overlay:
        assert labels.mode == "P"  # values are labels, shown in colours
        np.testing.assert_array_equal(np.asarray(labels), label_map)
        np.testing.assert_array_equal(
            np.asarray(labels.convert("RGB")), visualize.palette(239)[label_map]
        )
        np.testing.assert_array_equal(
            np.asarray(overlay), visualize.overlay(picture, label_map)
        )
    with pytest.raises(ValueError, match="from 0 to 255.*from 256 to 256"):
        visualize.save_segmentation(
            picture, np.full((5, 7), 256), tmp_path / "none", "a"
        )
    assert not (tmp_path / "none").exists()


def test_a_legend_tells_the_classes_that_occur(tmp_path):
    """Below the picture, which is as it was."""
    for size, names in (((5, 7), 2), ((50, 300), 1)):
        picture = noise(*size)
        label_map = np.zeros(size, int)
        label_map[0] = 2 * (names - 1)
        _, path = visualize.save_segmentation(
            picture, label_map, tmp_path, "c", ["street", "sky", "a tree"]
        )
        with Image.open(path) as overlay:
            pixels = np.asarray(overlay)
        height, width = size
        np.testing.assert_array_equal(
            pixels[:height, :width], visualize.overlay(picture, label_map)
        )
        below = pixels[height:].reshape(-1, 3).tolist()
        colours = visualize.palette(3).tolist()
        shown = [colour in below for colour in colours]
        assert shown == [True, False, names == 2]
        assert pixels.shape[1] == width or width < 60


def test_overlay_sheet_shows_truth_and_prediction(tmp_path, monkeypatch):
    texts = written(monkeypatch)
    grey = np.full((20, 30, 3), 100, "uint8")
    truth, prediction = np.full((20, 30), 9), np.full((20, 30), 1)
    truth[:, :15] = 0  # the right half has no class
    path = visualize.overlay_sheet(
        [grey, grey[:, :20]],
        [truth, truth[:, :20]],
        [prediction, prediction[:, :20]],
        ["sky", "road"],
        tmp_path / "sheet.png",
        ignore_label=9,
    )
    drawn = [text for text in texts if text]
    assert drawn == ["photo", "truth", "prediction", "sky", "road"]
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB")).astype(int)
    # The middle of the first row of panels, 320 x 213 below a caption.
    sky, road = visualize.palette(2)
    expected = {
        160: (100, 100, 100),
        400: 45 + 0.55 * sky,
        560: (100, 100, 100),
        800: 45 + 0.55 * road,
    }
    for column, colour in expected.items():
        assert np.abs(pixels[120, column] - colour).max() < 4
    for colour in (sky, road):  # in the legend
        assert (pixels[-24:] == colour).all(-1).sum() > 100


def test_a_sheet_of_many_details_and_classes_stays_small(tmp_path):
    pictures = [noise(90, 150, seed) for seed in range(12)]
    label_maps = [picture[..., 0].astype("int64") for picture in pictures]
    names = [f"class number {label}" for label in range(256)]
    path = visualize.overlay_sheet(
        pictures, label_maps, label_maps, names, tmp_path / "sheet.png"
    )
    assert 50_000 < path.stat().st_size < 400_000


def test_the_legend_is_exact_below_colourful_pictures(tmp_path):
    pictures, label_maps = [noise(90, 150)], [np.zeros((90, 150), int)]
    names = [f"class {label}" for label in range(12)]
    path = visualize.overlay_sheet(
        pictures, label_maps, label_maps, names, tmp_path / "sheet.png"
    )
    with Image.open(path) as image:
        legend = np.asarray(image.convert("RGB"))[-36:]
    for colour in visualize.palette(12):
        assert (legend == colour).all(-1).sum() >= 13 * 12


def test_overlay_sheet_needs_as_many_of_each(tmp_path):
    picture, label_map = noise(3, 4), np.zeros((3, 4), int)
    path = tmp_path / "sheet.png"
    for counts in ((0, 0, 0), (1, 2, 1), (2, 2, 1)):
        given = [picture] * counts[0], *([label_map] * n for n in counts[1:])
        message = "{} pictures, {} truths, {} predictions".format(*counts)
        with pytest.raises(ValueError, match=f"Received: {message}"):
            visualize.overlay_sheet(*given, ["sky"], path)
    assert not path.exists()


def test_captions_fit_their_panels():
    for text in ("photo", "a_layer_of_a_rather_long_name 28x28, 0.1 to 2.3"):
        font = sheets._caption_font(text, 200)
        assert font.getlength(text) <= 200
    assert sheets._caption_font("photo", 200).size == 13


ATTENTIONS = {
    "kv": kanets_layers.KroneckerAttention(
        "kv", num_heads=2, projections="qkvo", use_bias=True
    ),
    "qkv": kanets_layers.KroneckerAttention(
        "qkv", num_heads=3, projections="qvo", use_bias=True
    ),
    "qkv bare": kanets_layers.KroneckerAttention("qkv", projections=""),
    "dense": kanets_layers.DenseAttention(num_heads=2, projections="vo"),
    "dense 2": kanets_layers.DenseAttention(2, num_heads=3),
    "dense 3": kanets_layers.DenseAttention(3, num_heads=2, projections="kv"),
}


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("grid", [(5, 7), (8, 3), (1, 4)])
def test_weights_times_values_are_the_output(name, grid):
    layer = type(ATTENTIONS[name]).from_config(ATTENTIONS[name].get_config())
    inputs = 2 * random(2, *grid, 6)
    layer.build(inputs.shape)
    for index, weight in enumerate(layer.weights):
        if "bias" in weight.path:
            weight.assign(random(6, seed=index))
    output = to_numpy(layer(inputs))
    values = to_numpy(layer._maps.get("value", lambda x: x)(inputs))
    values = values.reshape(2, *grid, layer.num_heads, -1)
    for position in ((0, 0), (grid[0] - 1, 2), (grid[0] // 2, grid[1] - 1)):
        weights = visualize.attention_weights(layer, inputs, position)
        assert weights.shape == (2, layer.num_heads, *grid)
        assert weights.min() >= 0
        np.testing.assert_allclose(weights.sum((2, 3)), 1, atol=1e-5)
        found = np.einsum("bnij,bijnd->bnd", weights, values)
        found = found.reshape(2, 1, 6)
        found = to_numpy(layer._maps.get("output", lambda x: x)(found))
        times = 2 if getattr(layer, "mode", "") == "qkv" else 1
        expected = output[:, position[0], position[1]]
        np.testing.assert_allclose(times * found[:, 0], expected, atol=2e-5)
    assert np.ptp(weights) * weights[0, 0].size > 0.05, "all look the same"


def test_weights_are_refused():
    inputs = random(1, 5, 7, 4)
    layer = ATTENTIONS["qkv bare"]
    with pytest.raises(ValueError, match="must be Kronecker.*Dense name="):
        visualize.attention_weights(keras.layers.Dense(4), inputs, (0, 0))
    with pytest.raises(ValueError, match=r"width, channels.*=\(1, 7, 4\)"):
        visualize.attention_weights(layer, inputs[:, 0], (0, 0))
    for position in ((5, 0), (0, -1), (0, 0, 0)):
        with pytest.raises(ValueError, match=r"\(5, 7\). Received: position"):
            visualize.attention_weights(layer, inputs, position)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 20, 3))
    x = keras.layers.Rescaling(1 / 32, -4.0, name="scale")(inputs)
    x = kanets_layers.AttnModule(4, 2, 2, attention="kao_kv", name="first")(x)
    x = kanets_layers.AttnSkipModule(4, 2, name="second")(x)
    x = kanets_layers.AttnModule(4, 2, attention=None, name="without")(x)
    x = kanets_layers.DenseAttention(name="third")(x)
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def test_attention_layers(model):
    found = visualize.attention_layers(model)
    assert list(found) == ["first", "second", "third"]
    assert found["first"] is model.get_layer("first").attention
    assert found["third"] is model.get_layer("third")


def test_attention_map(model):
    picture = noise(12, 20)
    pixels = picture[None].astype("float32")
    reach = keras.Model(model.input, model.get_layer("second").input)
    found = visualize.attention_map(model, picture, "second", (5, 19))
    expected = visualize.attention_weights(
        model.get_layer("second").attention, reach(pixels), (2, 9)
    )
    assert found.shape == (6, 10)
    np.testing.assert_allclose(found, expected[0].mean(0), atol=1e-6)
    last = visualize.attention_map(model, picture)
    centre = visualize.attention_map(model, picture, "third", (6, 10))
    assert last.shape == (6, 10) and np.ptp(last) > 1e-3
    np.testing.assert_array_equal(last, centre)
    first = visualize.attention_map(model, picture, "first")
    assert first.shape == (12, 20)


def test_attention_map_refuses(model):
    picture = noise(12, 20)
    with pytest.raises(ValueError, match=r"'third'\]. Received: \['without'\]"):
        visualize.attention_map(model, picture, "without")
    with pytest.raises(ValueError, match=r"the model takes.*\(20, 12, 3\)"):
        visualize.attention_map(model, noise(20, 12))
    with pytest.raises(ValueError, match=r"\(12, 20\). Received.*\(12, 0\)"):
        visualize.attention_map(model, picture, position=(12, 0))
    plain = keras.Model(model.input, model.get_layer("scale").output)
    with pytest.raises(ValueError, match=r"with one: \[\]. Received: \[\]"):
        visualize.attention_map(plain, picture)


def test_attention_sheet(model, tmp_path, monkeypatch):
    drawn = []

    def save_sheet(rows, path):
        drawn.append(rows)
        return sheets.save_sheet(rows, path)

    monkeypatch.setattr(attention, "save_sheet", save_sheet)
    pictures, positions = [noise(12, 20), noise(12, 20, 1)], [(1, 2), (5, 17)]
    path = visualize.attention_sheet(
        model, pictures, tmp_path / "sheet.png", positions
    )
    assert 0 < path.stat().st_size < 400_000
    [rows] = drawn
    for row, picture, position in zip(rows, pictures, positions, strict=True):
        names = [caption.split(",")[0] for caption, _ in row]
        assert names == ["photo", "first 12x20", "third 6x10"]
        photo, _, heat = (panel(200) for _, panel in row)
        photo, heat = np.asarray(photo), np.asarray(heat)
        ring = np.argwhere((photo == attention._MARK).all(-1)).mean(0)
        centre = 10 * (np.array(position) + 0.5)
        np.testing.assert_allclose(ring, centre, atol=1)
        weights = visualize.attention_map(model, picture, "third", position)
        low, high = weights.min() * 60, weights.max() * 60
        assert row[2][0].endswith(f", {low:.2f} to {high:.2f} x even")
        # Cells of 20 x 20: red where weights are high, grey where low.
        best = 20 * np.argwhere(weights == weights.max())[0] + 10
        worst = 20 * np.argwhere(weights == weights.min())[0] + 10
        assert np.ptp(heat[tuple(best)]) > 50
        assert np.ptp(heat[tuple(worst)]) <= 1
        frame = np.argwhere((heat == attention._MARK).all(-1))
        cell = np.array(position) // 2
        np.testing.assert_array_equal(frame.min(0), 20 * cell)
        np.testing.assert_array_equal(frame.max(0), 20 * cell + 19)


def test_a_classifier_s_answer_is_above_the_photo(model, tmp_path, monkeypatch):
    texts = written(monkeypatch)
    pooled = keras.layers.GlobalAveragePooling2D()(model.output)
    scores = keras.layers.Softmax()(pooled)
    classifier = keras.Model(model.input, scores)
    picture, path = noise(12, 20), tmp_path / "sheet.png"
    [found] = to_numpy(classifier(picture[None].astype("float32")))
    visualize.attention_sheet(classifier, [picture], path)
    classifier.class_names = ("ant", "bee")
    visualize.attention_sheet(classifier, [picture], path)
    best = ("ant", "bee")[found.argmax()]
    photo, *_, said, _, _ = texts
    assert (photo, said) == ("photo", f"{best} {found.max():.2f}")
    # What gives other things than a score a class says none.
    features = keras.Model(model.input, keras.layers.Dense(3)(pooled))
    features.class_names = ("ant", "bee")
    visualize.attention_sheet(features, [picture], path)
    assert texts[-3] == "photo"


def test_pixels_may_be_floats(model, tmp_path):
    picture = noise(12, 20)
    paths = [tmp_path / "integers.png", tmp_path / "floats.png"]
    visualize.attention_sheet(model, [picture], paths[0])
    visualize.attention_sheet(model, [picture.astype("float32")], paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_attention_sheet_of_chosen_layers(model, tmp_path, monkeypatch):
    texts = written(monkeypatch)
    path = tmp_path / "sheet.png"
    visualize.attention_sheet(model, [noise(12, 20)], path, layers=["second"])
    assert [text.split(",")[0] for text in texts] == ["photo", "second 6x10"]
    with pytest.raises(ValueError, match="2 pictures, 1 positions"):
        visualize.attention_sheet(model, [noise(12, 20)] * 2, path, [(0, 0)])
    with pytest.raises(ValueError, match="Received: 0 pictures"):
        visualize.attention_sheet(model, [], path)


def test_an_even_map_is_drawn_as_even():
    weights = np.full((3, 4), 1 / 12) * (1 + 1e-6 * random(3, 4))
    heat = attention._heat_panel(noise(6, 8), weights, (0, 0), 80)
    heat = np.asarray(heat).astype(int)
    is_frame = (heat == attention._MARK).all(-1)
    assert is_frame.any() and np.ptp(heat[~is_frame], axis=-1).max() <= 1
