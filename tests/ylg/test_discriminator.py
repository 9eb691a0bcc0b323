"""The discriminator: table, sizes, counts, precision, gradients, saving."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.backends import counts_once, to_numpy, weight_gradients
from tests.layer_checks import fill_weights, random
from tests.ylg.test_generator import CHOICES, POLICIES, run, settle
from ylg.gan.discriminator_network import CHANNELS, discriminator

CLASSES = 3


def make(**arguments):
    """A small one; with two heads, as JAX takes seconds to compile eight."""
    return discriminator(
        32,
        4,
        num_classes=CLASSES,
        num_heads=2,
        kernel_initializer="zeros",
        **arguments,
    )


@pytest.fixture(scope="module")
def model():
    model = make()
    fill_weights(model.weights)
    settle(model)
    return model


def inputs(size=4):
    rng = np.random.default_rng(0)
    pictures = rng.uniform(-1, 1, (size, 32, 32, 3)).astype("float32")
    labels = (np.arange(size) % CLASSES).astype("int32")
    return [ops.convert_to_tensor(x) for x in (pictures, labels)]


def count(channels, halving, classes, attended=None):
    """Parameters, from the channels of the blocks' outputs."""

    def normalized(rows, columns, bias=True):
        return rows * columns + rows + (columns if bias else 0)

    total = 0
    for index, after in enumerate(channels):
        before = channels[index - 1] if index else 3
        total += normalized(9 * before, after) + normalized(9 * after, after)
        if index < halving or before != after:
            total += normalized(before, after)
    total += normalized(channels[-1], 1)
    if classes:
        total += normalized(channels[-1], classes, False)
    if attended:
        total += 2 * normalized(attended, max(8, attended // 8), False)
        merged = 8 * max(1, attended // 16)
        total += normalized(attended, merged, False)
        total += normalized(merged, attended, False) + 1
    return total


@counts_once
@pytest.mark.parametrize(
    "size, channels, sides",
    [
        (32, [16, 16, 16, 16], [16, 8, 8, 8]),
        (64, [4, 8, 16, 32, 64], [32, 16, 8, 4, 4]),
        (128, [4, 8, 16, 32, 64, 64], [64, 32, 16, 8, 4, 4]),
        (256, [4, 8, 16, 32, 32, 64, 64], [128, 64, 32, 16, 8, 4, 4]),
    ],
)
@pytest.mark.parametrize("classes, attention", CHOICES)
def test_counts_and_shapes(size, channels, sides, classes, attention):
    model = discriminator(
        size, 4, classes, attention, kernel_initializer="zeros"
    )
    attended = None
    if attention is None:
        assert "attention" not in [layer.name for layer in model.layers]
    else:
        side = 16 if size == 32 else 32
        attended = channels[sides.index(side)]
        shape = model.get_layer("attention").input.shape
        assert shape == (None, side, side, attended)
    halving = CHANNELS[size][1]
    assert model.count_params() == count(channels, halving, classes, attended)
    assert model.output_shape == (None, 1)
    for index, (filters, side) in enumerate(
        zip(channels, sides, strict=True), 1
    ):
        output = model.get_layer(f"block{index}").output
        assert output.shape == (None, side, side, filters)


def test_logits(model):
    pictures, labels = inputs()
    assert [x.name for x in model.inputs] == ["images", "labels"]
    logits = run(model, [pictures, labels])
    assert logits.shape == (4, 1) and logits.dtype == np.float32
    others = run(model, [pictures, (labels + 1) % CLASSES])
    assert np.abs(others - logits).min() > 0.01  # the class matters
    turned = run(model, [ops.flip(x, axis=0) for x in (pictures, labels)])
    np.testing.assert_allclose(turned[::-1], logits, rtol=1e-4)


@pytest.mark.slow
def test_projection(model):
    """The classes differ by the product with their embedding."""
    pictures, labels = inputs()
    features = keras.Model(model.inputs, model.get_layer("dense").input)
    layer = model.get_layer("embedding")
    table = to_numpy(layer.layer.embeddings) / to_numpy(layer.spectral_norm())
    h = run(features, [pictures, labels])
    shifted = (labels + 1) % CLASSES
    difference = run(model, [pictures, shifted])
    difference -= run(model, [pictures, labels])
    rows = table[to_numpy(shifted)] - table[to_numpy(labels)]
    np.testing.assert_allclose(
        difference[:, 0], np.sum(h * rows, 1), rtol=1e-3, atol=1e-3
    )


@pytest.mark.slow
def test_unconditional():
    model = discriminator(
        32,
        4,
        attention="dense",
        attention_size=8,
        num_heads=2,
        kernel_initializer="zeros",
    )
    assert len(model.inputs) == 1
    assert model.get_layer("attention").input.shape == (None, 8, 8, 16)
    assert run(model, inputs()[0]).shape == (4, 1)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_mixed_precision(model, policy):
    half = make(dtype=policy)
    half.set_weights(model.get_weights())
    assert half.get_layer("block2").output.dtype == policy.removeprefix(
        "mixed_"
    )
    assert half.output.dtype == half.get_layer("dense").output.dtype
    assert half.output.dtype == "float32"
    logits, expected = run(half, inputs()), run(model, inputs())
    tolerance = 0.01 if policy == "mixed_float16" else 0.1
    np.testing.assert_allclose(
        logits, expected, atol=tolerance * np.abs(expected).max()
    )


def test_every_weight_gets_a_gradient(model):
    gradients = weight_gradients(model, inputs(), training=True)
    assert len(gradients) == len(model.trainable_variables)
    for path, values in gradients.items():
        assert np.all(np.isfinite(values)), path
        assert np.abs(values).max() > 1e-6, path


def test_training_moves_singular_vectors_only(model):
    copy = keras.Model.from_config(model.get_config())
    for weight in copy.weights:  # those of `model` have settled
        weight.assign(random(*weight.shape))
    before = [np.array(to_numpy(weight)) for weight in copy.weights]
    copy(inputs(), training=True)
    for weight, old in zip(copy.weights, before, strict=True):
        moved = not np.array_equal(to_numpy(weight), old)
        vector = weight.path.endswith("left_singular_vector")
        assert moved == vector, weight.path


@pytest.mark.slow
def test_save_and_load(model, tmp_path):
    model.save(tmp_path / "discriminator.keras")
    loaded = keras.saving.load_model(tmp_path / "discriminator.keras")
    np.testing.assert_allclose(
        run(loaded, inputs()), run(model, inputs()), rtol=1e-5
    )


@pytest.mark.parametrize("official", [False, True])
def test_official_constants(official):
    model = make(official=official)
    attention = model.get_layer("attention")
    for name in ("dense", "embedding", "block1_shortcut"):
        assert model.get_layer(name).only_shrink == official
        assert model.get_layer(name).iterate_at_inference == official
    assert not attention.out.only_shrink
    assert attention.out.iterate_at_inference == official
    assert attention.alignment == ("tiled" if official else "spatial")


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"image_size": 96}, r"one of \[32, 64, 128, 256\].*image_size=96"),
        ({"width": 1.5}, "width must be a positive integer.*width=1.5"),
        ({"num_classes": -2}, "num_classes must be a positive.*=-2"),
        ({"num_heads": 0}, "num_heads must be a positive.*num_heads=0"),
        ({"attention": "none"}, "attention must be one of.*'none'"),
        (
            {"image_size": 32, "attention_size": 32},
            r"one of \[8, 16\].*attention_size=32",
        ),
    ],
)
def test_wrong_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        discriminator(**arguments)
