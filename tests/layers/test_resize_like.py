"""ResizeLike against bilinear interpolation written as a loop."""

import json

import keras
import numpy as np
import pytest

from kanets.layers import ResizeLike
from tests.backends import compiled, dot, gradient, needs_tensorflow, to_numpy
from tests.layer_checks import random

# XLA's own resizing errs for (9, 5) to (33, 17).
SIZES = [
    ((3, 4), (7, 9)),
    ((1, 1), (2, 5)),
    ((5, 2), (5, 3)),
    ((6, 7), (4, 2)),
    ((9, 5), (33, 17)),
]


def line(before, after):
    """The two cells each output cell lies between, and how far."""
    places = (np.arange(after) + 0.5) * before / after - 0.5
    places = np.clip(places, 0, before - 1)
    low = np.floor(places).astype(int)
    return low, np.minimum(low + 1, before - 1), places - low


def interpolate(maps, size):
    rows, columns = line(maps.shape[1], size[0]), line(maps.shape[2], size[1])
    output = np.zeros((len(maps), *size, maps.shape[-1]))
    for i, (top, bottom, down) in enumerate(zip(*rows, strict=True)):
        for j, (left, right, along) in enumerate(zip(*columns, strict=True)):
            above = (1 - along) * maps[:, top, left] + along * maps[
                :, top, right
            ]
            below = (1 - along) * maps[:, bottom, left]
            below = below + along * maps[:, bottom, right]
            output[:, i, j] = (1 - down) * above + down * below
    return output


def resize(maps, size):
    return ResizeLike()([maps, np.zeros((len(maps), *size, 2), "float32")])


@pytest.mark.parametrize(("before", "after"), SIZES, ids=str)
def test_equals_interpolation_in_numpy(before, after):
    maps = random(2, *before, 3)
    found = resize(maps, after)
    assert tuple(found.shape) == (2, *after, 3)
    np.testing.assert_allclose(
        to_numpy(found), interpolate(maps, after), atol=1e-5
    )


def test_by_hand():
    maps = np.array([0, 4], "float32").reshape(1, 1, 2, 1)
    found = to_numpy(resize(maps, (1, 4))).ravel()
    np.testing.assert_allclose(found, [0, 1, 3, 4], atol=1e-6)


def test_gradients_go_to_the_maps():
    maps, direction = random(1, 3, 2, 1), random(1, 5, 4, 1, seed=1)
    (found,) = gradient(lambda x: dot(resize(x, (5, 4)), direction), maps)
    for index in np.ndindex(maps.shape):
        one = np.zeros(maps.shape)
        one[index] = 1
        expected = (interpolate(one, (5, 4)) * direction).sum()
        assert abs(found[index] - expected) < 1e-5


def open_model():
    maps = keras.Input((None, None, 3))
    reference = keras.Input((None, None, 2))
    return keras.Model(
        [maps, reference], ResizeLike(name="resize")([maps, reference])
    )


def test_open_sizes():
    model = open_model()
    assert model.output_shape == (None, None, None, 3)
    assert "7" not in json.dumps(model.get_layer("resize").get_config())
    for before, after in SIZES:
        maps = random(2, *before, 3)
        found = model([maps, np.zeros((2, *after, 2), "float32")])
        expected = interpolate(maps, after)
        np.testing.assert_allclose(to_numpy(found), expected, atol=1e-5)


@needs_tensorflow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_graph_of_open_sizes(jit_compile):
    import tensorflow as tf

    function = tf.function(
        open_model(),
        input_signature=[
            [
                tf.TensorSpec((None, None, None, channels), tf.float32)
                for channels in (3, 2)
            ]
        ],
        jit_compile=jit_compile,
    )
    for before, after in SIZES:
        maps = random(2, *before, 3)
        found = function([maps, np.zeros((2, *after, 2), "float32")])
        expected = interpolate(maps, after)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("before", "after"), SIZES, ids=str)
def test_known_sizes_compiled(before, after):
    maps = random(2, *before, 3)
    found = compiled(lambda x: resize(x, after))(maps)
    expected = interpolate(maps, after)
    np.testing.assert_allclose(to_numpy(found), expected, atol=1e-5)


def test_known_sizes_are_known_before_the_call():
    symbolic = ResizeLike()([keras.Input((3, 4, 3)), keras.Input((7, None, 2))])
    assert symbolic.shape == (None, 7, None, 3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype):
    maps = random(2, 3, 4, 3)
    layer = ResizeLike(dtype=f"mixed_{dtype}")
    inputs = [keras.Input((None, None, 3)), keras.Input((None, None, 2))]
    found = layer([maps, np.zeros((2, 7, 9, 2), "float32")])
    for tensor in (found, layer(inputs)):
        assert keras.backend.standardize_dtype(tensor.dtype) == dtype
    found = to_numpy(keras.ops.cast(found, "float32"))
    np.testing.assert_allclose(found, interpolate(maps, (7, 9)), atol=0.03)


def test_saved_and_loaded(tmp_path):
    pixels = keras.Input((None, None, 3))
    half = keras.layers.AveragePooling2D(2, padding="same")(pixels)
    model = keras.Model(pixels, ResizeLike()([half, pixels]))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = random(2, 5, 7, 3)
    expected = interpolate(to_numpy(keras.Model(pixels, half)(x)), (5, 7))
    np.testing.assert_allclose(to_numpy(loaded(x)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (np.zeros((1, 3, 4, 2)), "expects 2 input.*received 1 input"),
        (
            [np.zeros((1, 3, 4, 2)), np.zeros((3, 4, 2))],
            "expected ndim=4, found ndim=3",
        ),
    ],
)
def test_bad_input_is_named(inputs, text):
    with pytest.raises(ValueError, match=text):
        ResizeLike()(inputs)
