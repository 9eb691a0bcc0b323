"""Cross-covariance attention: the channels of a head attend to each other."""

import keras
import numpy as np
import pytest

from kanets import attention
from kanets.attention import (
    CrossCovarianceAttention,
    cross_covariance_attention,
)
from tests.backends import few_on_jax, thorough_on_jax, to_numpy
from tests.layer_checks import check_layer, fill_weights, random


def by_loops(query, key, value, num_heads, temperature):
    batch, tokens, channels = query.shape
    query, key = query.astype("float64"), key.astype("float64")
    size = channels // num_heads
    output = np.zeros(query.shape)
    weights = np.zeros((batch, num_heads, size, size))
    for b, n, i in np.ndindex(batch, num_heads, size):
        one = query[b, :, n * size + i]
        scores = np.zeros(size)
        for j in range(size):
            other = key[b, :, n * size + j]
            cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
            scores[j] = temperature[n] * cosine
        weights[b, n, i] = np.exp(scores) / np.exp(scores).sum()
        for t, j in np.ndindex(tokens, size):
            share = weights[b, n, i, j] * value[b, t, n * size + j]
            output[b, t, n * size + i] += share
    return output, weights


@pytest.mark.parametrize(
    ("tokens", "heads"), few_on_jax([(7, 2), (5, 1), (1, 3), (4, 6)])
)
def test_equals_loops(tokens, heads):
    arrays = [random(2, tokens, 6, seed=s) for s in range(3)]
    temperature = 1 + random(heads) ** 2
    found = cross_covariance_attention(*arrays, heads, temperature)
    expected = by_loops(*arrays, heads, temperature)
    for actual, array in zip(found, expected, strict=True):
        np.testing.assert_allclose(to_numpy(actual), array, atol=1e-6)
    plain, _ = cross_covariance_attention(*arrays, heads)
    ones, _ = by_loops(*arrays, heads, np.ones(heads))
    np.testing.assert_allclose(to_numpy(plain), ones, atol=1e-6)


def test_half_precision():
    """Sums over a grid of squares overflow float16."""
    arrays = [
        (100 * random(1, 64, 4, seed=s)).astype("float16") for s in (0, 1)
    ]
    value = random(1, 64, 4).astype("float16")
    found, weights = cross_covariance_attention(*arrays, value, 2)
    expected, _ = by_loops(*arrays, value, 2, np.ones(2))
    assert keras.backend.standardize_dtype(found.dtype) == "float16"
    assert keras.backend.standardize_dtype(weights.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(found), expected, atol=5e-3)


@thorough_on_jax
def test_maps_are_shares_of_length():
    """A cell with all there is holds all, whatever the position."""
    layer = CrossCovarianceAttention(2, use_bias=False)
    x = np.zeros((1, 3, 4, 6), "float32")
    x[0, 1, 2] = random(6)
    for position in ((0, 0), (1, 2)):
        maps = layer.attention_maps(x, position)
        np.testing.assert_allclose(maps[:, :, 1, 2], 1, atol=1e-6)
    fill_weights(layer.weights, layer.name)
    x = random(2, 3, 4, 6)
    maps = layer.attention_maps(x, (0, 0))
    mapped = x @ to_numpy(layer.maps.kernel)[0, 0]
    expected = 0
    for part in (mapped[..., :6], mapped[..., 6:12]):
        squares = part**2 / (part**2).sum((1, 2), keepdims=True)
        expected += squares.reshape(2, 3, 4, 2, 3).mean(-1) / 2
    np.testing.assert_allclose(maps, expected.transpose(0, 3, 1, 2), atol=1e-6)


@pytest.mark.thorough
def test_layer():
    check_layer(
        lambda **more: CrossCovarianceAttention(2, **more), (2, 5, 6, 8)
    )


def test_errors():
    with pytest.raises(ValueError, match="num_heads=3, channels=8"):
        attention.make({"name": "cross_covariance", "num_heads": 3})(
            random(1, 3, 5, 8)
        )
    with pytest.raises(ValueError, match="num_heads=3"):
        cross_covariance_attention(*3 * [random(1, 5, 8)], num_heads=3)
