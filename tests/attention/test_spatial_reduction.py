"""Spatial-reduction attention: keys of blocks, and of overlapping bins."""

import keras
import numpy as np
import pytest

from kanets import attention
from kanets.attention import SpatialReductionAttention, adaptive_average_pool
from kanets.attention.grid import fill_block
from tests.backends import needs_tensorflow, thorough_on_jax, to_numpy
from tests.layer_checks import check_layer, fill_weights, random


def bins(size, side):
    """First cell and end of each bin."""
    return [(i * size // side, -(-(i + 1) * size // side)) for i in range(side)]


def pooled_by_loops(x, side):
    batch, height, width, channels = x.shape
    found = np.zeros((batch, side, side, channels))
    for i, (top, bottom) in enumerate(bins(height, side)):
        for j, (left, right) in enumerate(bins(width, side)):
            found[:, i, j] = x[:, top:bottom, left:right].mean((1, 2))
    return found


@pytest.mark.parametrize("grid", [(5, 9), (7, 14), (1, 1), (3, 20)])
@thorough_on_jax
def test_adaptive_pools_equal_loops(grid):
    x = random(2, *grid, 3)
    found = to_numpy(adaptive_average_pool(x, 7))
    np.testing.assert_allclose(found, pooled_by_loops(x, 7), atol=1e-6)


@needs_tensorflow
def test_adaptive_pools_of_open_sizes():
    import tensorflow as tf

    spec = tf.TensorSpec((None, None, None, 2), tf.float16)
    function = tf.function(
        lambda x: adaptive_average_pool(x, 3), input_signature=[spec]
    )
    for grid in ((4, 7), (1, 2)):
        x = random(2, *grid, 2).astype("float16")
        expected = pooled_by_loops(x.astype("float64"), 3)
        np.testing.assert_allclose(function(x), expected, atol=2e-3)


def test_small_pictures_are_one_block():
    x = random(2, 3, 5, 2)
    np.testing.assert_array_equal(to_numpy(fill_block(x, 3)), x)
    expected = np.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0)), "edge")
    np.testing.assert_array_equal(to_numpy(fill_block(x, 4)), expected)


def by_loops(layer, x):
    """A layer of stride 2 and scale None, its norm included."""
    kernel, bias = (to_numpy(w) for w in layer.reduction.weights)
    gamma, beta = (to_numpy(w) for w in layer.norm.weights)
    _, height, width, channels = x.shape
    keys = []
    for i in range(height // 2):
        for j in range(width // 2):
            block = x[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            cell = np.einsum("ijc,ijcd->d", block, kernel) + bias
            cell = (cell - cell.mean()) / np.sqrt(cell.var() + 1e-5)
            keys.append(cell * gamma + beta)
    mapped = [
        (to_numpy(m.kernel)[0, 0], to_numpy(m.bias))
        for m in (layer.query, layer.key_value, layer.output_map)
    ]
    query, both, output = (
        t @ kernel + bias
        for t, (kernel, bias) in zip(
            (x[0], np.array(keys), np.zeros((1, channels))),
            mapped,
            strict=True,
        )
    )
    found = np.zeros((height, width, channels))
    size = channels // layer.num_heads
    for i, j, n in np.ndindex(height, width, layer.num_heads):
        part = slice(n * size, (n + 1) * size)
        scores = np.exp(both[:, part] @ query[i, j, part])
        values = both[:, channels + n * size : channels + (n + 1) * size]
        found[i, j, part] = scores / scores.sum() @ values
    return found @ mapped[2][0] + output


@thorough_on_jax
def test_equals_loops():
    """What fills no block, the last row here, is no key."""
    layer, x = SpatialReductionAttention(2), random(1, 5, 4, 6)
    layer.build(x.shape)
    fill_weights(layer.weights, layer.name)
    found = to_numpy(layer(x))[0]
    np.testing.assert_allclose(found, by_loops(layer, x), atol=1e-5)
    changed = x.copy()
    changed[:, 4] += 1
    found = to_numpy(layer(changed))[0, :4]
    np.testing.assert_allclose(found, to_numpy(layer(x))[0, :4], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "grid", "keys"),
    [
        ({"key_stride": 2}, (5, 7), (2, 3)),
        ({"key_stride": 4}, (3, 9), (1, 2)),
        ({"key_stride": 1}, (3, 2), (3, 2)),
        ({"key_grid": 3}, (4, 8), (3, 3)),
    ],
)
@thorough_on_jax
def test_maps(arguments, grid, keys):
    """Each key stands for the cells it is made of."""
    layer, x = SpatialReductionAttention(2, **arguments), random(1, *grid, 4)
    _, scores = layer(x, return_attention_scores=True)
    assert scores.shape == (1, 2, np.prod(grid), np.prod(keys))
    position = (2, 1)
    query = position[0] * grid[1] + position[1]
    scores = to_numpy(scores)[:, :, query].reshape(1, 2, *keys)
    stride = arguments.get("key_stride")
    spans = [
        bins(size, arguments["key_grid"])
        if stride is None
        else [(i * stride, min((i + 1) * stride, size)) for i in range(count)]
        for size, count in zip(grid, keys, strict=True)
    ]
    expected = np.zeros((1, 2, *grid))
    for i, j in np.ndindex(keys):
        (top, bottom), (left, right) = spans[0][i], spans[1][j]
        area = (bottom - top) * (right - left)
        share = scores[:, :, i, j, None, None] / area
        expected[:, :, top:bottom, left:right] += share
    found = layer.attention_maps(x, position)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("more", [{"key_stride": 3}, {"key_grid": 3}], ids=str)
def test_layer(more):
    check_layer(
        lambda **given: SpatialReductionAttention(2, **more, **given),
        (2, 5, 6, 8),
    )


@thorough_on_jax
def test_half_precision():
    keras.utils.set_random_seed(0)
    x = 4 * random(1, 6, 6, 8)
    layer = SpatialReductionAttention(key_grid=2, scale="rsqrt")
    half = SpatialReductionAttention(
        key_grid=2, scale="rsqrt", dtype="mixed_float16"
    )
    expected = to_numpy(layer(x))
    half(x)
    half.set_weights(layer.get_weights())
    found = to_numpy(keras.ops.cast(half(x), "float32"))
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=0.05 * np.abs(expected).max()
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_heads": 3}, "num_heads must divide.*num_heads=3, channels=8"),
        ({"key_stride": 0}, "key_stride=0"),
        ({"key_grid": 0}, "key_grid=0"),
    ],
)
def test_errors(arguments, text):
    written = {"name": "spatial_reduction", **arguments}
    with pytest.raises(ValueError, match=text):
        attention.make(written)(random(1, 3, 5, 8))
