"""Rollout and Grad-CAM: against arrays, and on nets of ours."""

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import kanets
from kanets import attention, visualize
from kanets.nets import vit
from kanets.visualize.heat import smooth
from tests.attention.references import cases
from tests.backends import thorough_on_jax, to_numpy
from tests.layer_checks import fill_weights

FILE = Path(__file__).parent / "golden" / "rollout_gradcam_numpy.npz"
CASES = cases(FILE)
ROLLOUTS = [case for case in CASES if case.startswith("rollout")]
CAMS = [case for case in CASES if case.startswith("gradcam")]


def noise(height, width, seed=0):
    shape = (height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape).astype("uint8")


@pytest.mark.parametrize("fuse", ["mean", "max", "min"])
@pytest.mark.parametrize("case", ROLLOUTS)
def test_rollout_equals_the_arrays(case, fuse):
    arrays = CASES[case]
    weights = arrays["attention"]
    for layer, expected in enumerate(arrays[f"rollout_{fuse}_after_layer"]):
        found = visualize.rollout(weights[: layer + 1], fuse)
        np.testing.assert_allclose(found, expected, atol=1e-12)
    maps = found[:, 0, 1:].reshape(-1, *arrays["grid"])
    np.testing.assert_allclose(maps, arrays[f"cls_map_{fuse}"], atol=1e-12)


@pytest.mark.parametrize(
    ("shapes", "fuse", "text"),
    [
        ([], "mean", r"Received: shapes \[\]"),
        ([(1, 2, 3, 4)], "mean", r"shapes \[\(1, 2, 3, 4\)\]"),
        ([(1, 2, 3, 3), (1, 2, 4, 4)], "mean", r"\(1, 2, 4, 4\)"),
        ([(2, 3, 3)], "mean", r"\(2, 3, 3\)"),
        ([(1, 2, 3, 3)], "sum", "Received: fuse='sum'"),
    ],
)
def test_rollout_refuses(shapes, fuse, text):
    with pytest.raises(ValueError, match=text):
        visualize.rollout([np.ones(shape) for shape in shapes], fuse)


def make_vit(attention, monkeypatch, input_shape=(16, 24, 3)):
    sizes = vit.Variant(channels=16, depth=2, num_heads=2, mlp_channels=24)
    monkeypatch.setitem(vit.VARIANTS, "test", sizes)
    keras.utils.set_random_seed(3)
    model = kanets.ViT(
        input_shape, "test", classes=5, patch_size=4, attention=attention
    )
    fill_weights(model.weights)
    return model


def scores_of(model, picture):
    """The attention of each block, by hand."""
    found = []
    for block in range(2):
        layer = model.get_layer(f"block_{block}_attention")
        probe = keras.Model(model.input, layer.input)
        inputs = probe(picture[None].astype("float32"))
        _, scores = layer(inputs, return_attention_scores=True)
        found.append(to_numpy(scores))
    return found


def test_rollout_of_a_vit(monkeypatch):
    model, picture = make_vit("dense", monkeypatch), noise(16, 24)
    expected = visualize.rollout(scores_of(model, picture), "max")[0]
    found = visualize.rollout_map(model, picture, fuse="max")
    assert found.shape == (4, 6)
    np.testing.assert_allclose(found.ravel(), expected[0, 1:], atol=1e-6)
    found = visualize.rollout_map(model, picture, (9, 23), "max")
    np.testing.assert_allclose(
        found.ravel(), expected[1 + 2 * 6 + 5, 1:], atol=1e-6
    )
    # A single layer: without what it gives to the class token.
    scores = scores_of(model, picture)[1][0].mean(0)
    row = scores[1 + 2 * 6 + 5, 1:]
    found = visualize.attention_map(model, picture, position=(9, 23))
    heads = scores_of(model, picture)[1][0][:, 1 + 2 * 6 + 5, 1:]
    expected = (heads / heads.sum(-1, keepdims=True)).mean(0)
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-6)
    assert row.sum() < 1


@pytest.mark.thorough
def test_rollout_without_a_token(monkeypatch):
    model, picture = make_vit("dense_pool", monkeypatch), noise(16, 24)
    found = visualize.rollout_map(model, picture)
    np.testing.assert_allclose(found.sum(), 1, atol=1e-6)
    assert found.shape == (4, 6) and np.ptp(found) > 1e-3
    # By hand: what each key was pooled from counts alike.
    weights = []
    for scores in scores_of(model, picture):
        spread = np.zeros((1, 2, 24, 24))
        for cell, key in np.ndindex(24, 6):
            rows = 2 * (key // 3) + np.arange(2)
            columns = 2 * (key % 3) + np.arange(2)
            cells = (6 * rows[:, None] + columns).ravel()
            spread[0, :, cell, cells] = scores[0, :, cell, key] / 4
        weights.append(spread)
    expected = visualize.rollout(weights)[0].mean(0)
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-6)


@pytest.mark.parametrize("name", attention.names())
def test_every_mechanism_is_mapped(name):
    inputs = keras.Input((12, 10, 3))
    x = keras.layers.Conv2D(16, 2, 2, name="body")(inputs)
    model = keras.Model(inputs, attention.make(name, name="looks")(x))
    fill_weights(model.weights)
    found = visualize.attention_map(model, noise(12, 10), position=(11, 3))
    assert found.shape == (6, 5) and found.min() >= 0
    np.testing.assert_allclose(found.sum(), 1, atol=1e-5)


def test_rollout_needs_one_grid(monkeypatch):
    inputs = keras.Input((12, 10, 3))
    x = attention.make("kao_kv")(inputs)
    plain = keras.Model(inputs, keras.layers.Conv2D(2, 1)(inputs))
    x = attention.make("kao_kv")(keras.layers.MaxPooling2D()(x))
    model = keras.Model(inputs, x)
    with pytest.raises(ValueError, match=r"one grid.*\(6, 5\), \(12, 10\)"):
        visualize.rollout_map(model, noise(12, 10))
    with pytest.raises(ValueError, match="attention that can be mapped"):
        visualize.rollout_map(plain, noise(12, 10))
    with pytest.raises(ValueError, match=r"the model takes.*\(10, 12, 3\)"):
        visualize.rollout_map(model, noise(10, 12))
    with pytest.raises(ValueError, match=r"position=\(12, 0\)"):
        visualize.rollout_map(model, noise(12, 10), (12, 0))


def network_of(arrays, softmax=False):
    """The convolutions of a case, with its kernels."""
    inputs = keras.Input(arrays["image"].shape[1:])
    x = inputs
    for number in (1, 2, 3):
        kernel = arrays[f"conv{number}_kernel"]
        x = keras.layers.Conv2D(
            kernel.shape[-1],
            kernel.shape[:2],
            padding="same",
            activation="relu",
            data_format="channels_last",
            name=f"conv{number}",
        )(x)
        if number == 1:
            x = keras.layers.AveragePooling2D(2, data_format="channels_last")(x)
    x = keras.layers.GlobalAveragePooling2D(data_format="channels_last")(x)
    activation = "softmax" if softmax else None
    outputs = keras.layers.Dense(3, activation, name="dense")(x)
    model = keras.Model(inputs, outputs)
    for name in ("conv1", "conv2", "conv3", "dense"):
        model.get_layer(name).set_weights(
            [arrays[f"{name}_{part}"] for part in ("kernel", "bias")]
        )
    return model


@pytest.mark.parametrize("case", CAMS)
def test_grad_cam_equals_the_arrays(case):
    arrays = CASES[case]
    for softmax in (False, True):
        model = network_of(arrays, softmax)
        for item, (image, wanted) in enumerate(
            zip(arrays["image"], arrays["class_index"], strict=True)
        ):
            cam = visualize.grad_cam(model, image, wanted, "conv2")
            expected = arrays["cam_normalised"][item]
            np.testing.assert_allclose(cam, expected, atol=1e-5)
            expected = arrays["cam_upsampled"][item]
            large = smooth(cam, image.shape[:2])
            np.testing.assert_allclose(large, expected, atol=1e-5)
            best = arrays["logits"][item].argmax()
            np.testing.assert_array_equal(
                visualize.grad_cam(model, image),
                visualize.grad_cam(model, image, best, "conv3"),
            )


def test_grad_cam_past_a_layer_that_is_gone_around():
    """What the layer's input gives to the score beside it is no part of it."""
    inputs = keras.Input((4, 5, 3))
    first = keras.layers.Conv2D(6, 1, activation="relu", name="first")(inputs)
    second = keras.layers.Conv2D(6, 1, name="second")(first)
    x = keras.layers.Add(name="sum")([first, second])
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="top")(x))
    fill_weights(model.weights)
    picture = noise(4, 5)
    probe = keras.Model(inputs, second)
    maps = to_numpy(probe(picture[None].astype("float32")))[0]
    kernel = to_numpy(model.get_layer("top").kernel)
    largest = []
    for class_index in (0, 1):
        expected = np.maximum(maps @ kernel[:, class_index], 0)
        expected = expected / max(expected.max(), 1e-12)
        found = visualize.grad_cam(model, picture, class_index, "second")
        np.testing.assert_allclose(found, expected, atol=1e-4)
        largest.append(found.max())
    assert max(largest) == 1


@thorough_on_jax
@pytest.mark.parametrize("written", ["dense", "kao_kv"])
def test_grad_cam_of_a_vit(written, monkeypatch):
    model, picture = make_vit(written, monkeypatch), noise(16, 24)
    found = visualize.grad_cam(model, picture, 3)
    layer = "block_1_attention_norm" if written == "dense" else "norm"
    again = visualize.grad_cam(model, picture, 3, layer)
    np.testing.assert_array_equal(found, again)
    assert found.shape == (4, 6) and found.max() == 1 and found.min() >= 0


def test_sheets(monkeypatch, tmp_path):
    model = make_vit("dense", monkeypatch)
    model.class_names = tuple("abcde")
    pictures = [noise(16, 24), noise(16, 24, 1)]
    from kanets.visualize import attention_rollout, gradient_cam, sheets

    drawn = []

    def save_sheet(rows, path):
        drawn.append(rows)
        return sheets.save_sheet(rows, path)

    for module in (attention_rollout, gradient_cam):
        monkeypatch.setattr(module, "save_sheet", save_sheet)
    paths = [
        visualize.rollout_sheet(model, pictures, tmp_path / "rollout.png"),
        visualize.grad_cam_sheet(model, pictures, tmp_path / "cam.png", [3, 0]),
    ]
    for path in paths:
        with Image.open(path) as image:
            assert image.format == "PNG"
    scores = to_numpy(model(np.stack(pictures).astype("float32")))
    said = [f"{'abcde'[row.argmax()]} {row.max():.2f}" for row in scores]
    assert [[row[0][0] for row in rows] for rows in drawn] == [said, said]
    captions = [[row[1][0] for row in rows] for rows in drawn]
    assert captions == [["rollout 4x6"] * 2, ["d, 4x6", "a, 4x6"]]
    # Bright where the map is largest, grey where it is zero.
    cam = visualize.grad_cam(model, pictures[0], 3)
    heat = np.asarray(drawn[1][0][1][1](240)).astype(int)
    best = np.argwhere(cam == 1)[0] * 40 + 20
    assert np.ptp(heat[tuple(best)]) > 50
    low = np.argwhere(smooth(cam, (160, 240)) == 0)
    assert len(low) and np.ptp(heat[tuple(low[len(low) // 2])]) <= 1
    with pytest.raises(ValueError, match="2 pictures, 1 classes"):
        visualize.grad_cam_sheet(model, pictures, paths[0], [1])
    with pytest.raises(ValueError, match="Received: 0 pictures"):
        visualize.rollout_sheet(model, [], paths[0])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"class_index": 5}, "from 0 to 2. Received: class_index=5"),
        ({"class_index": True}, "Received: class_index=True"),
        ({"layer": "conv_2"}, r"nearest: conv2.*Received: layer='conv_2'"),
        ({"layer": "dense"}, "Received: layer='dense'"),
        ({"picture": noise(10, 12)}, r"the model takes.*\(10, 12, 3\)"),
    ],
)
def test_grad_cam_refuses(arguments, text):
    model = network_of(CASES["gradcam_0"])
    with pytest.raises(ValueError, match=text):
        visualize.grad_cam(model, **{"picture": noise(12, 10), **arguments})
    maps = keras.Model(model.input, model.get_layer("conv3").output)
    with pytest.raises(ValueError, match=r"scores \(batch, classes\)"):
        visualize.grad_cam(maps, noise(12, 10))
