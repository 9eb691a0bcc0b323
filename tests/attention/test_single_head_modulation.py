"""Single-head modulation: sigmoids of values and of a gate."""

import keras
import numpy as np
import pytest

from kanets import attention
from kanets.attention import SingleHeadModulation
from tests.backends import thorough_on_jax, to_numpy
from tests.layer_checks import check_layer, fill_weights, random


def mapped(layers, x):
    """A map and its batch normalisation in inference, over the last axis."""
    linear, norm = layers
    gamma, beta, mean, variance = (to_numpy(w) for w in norm.weights)
    x = x @ to_numpy(linear.kernel)[0, 0]
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def by_loops(layer, x):
    batch, height, width, channels = x.shape
    tokens = x.reshape(batch, -1, channels).astype("float64")
    query, key = mapped(layer.query, tokens), mapped(layer.key, tokens)
    both = 1 / (1 + np.exp(-mapped(layer.value_gate, tokens)))
    size = both.shape[-1] // 2
    found = np.zeros((*tokens.shape[:2], size))
    for b, i in np.ndindex(tokens.shape[:2]):
        for n in range(layer.num_heads):
            keys = np.array_split(np.arange(key.shape[-1]), layer.num_heads)[n]
            part = np.array_split(np.arange(size), layer.num_heads)[n]
            scores = np.exp(key[b][:, keys] @ query[b, i, keys])
            shares = scores / scores.sum()
            found[b, i, part] = shares @ both[b][:, part]
        found[b, i] *= both[b, i, size:]
    return mapped(layer.output_map, found).reshape(x.shape)


@pytest.mark.parametrize(
    ("grid", "heads"), [((3, 5), 1), ((1, 1), 1), ((2, 3), 2)]
)
@thorough_on_jax
def test_equals_loops(grid, heads):
    layer, x = SingleHeadModulation(4, 6, num_heads=heads), random(2, *grid, 5)
    layer.build(x.shape)
    fill_weights(layer.weights, layer.name)
    found = to_numpy(layer(x, training=False))
    np.testing.assert_allclose(found, by_loops(layer, x), atol=1e-5)


def test_sizes_by_default():
    layer = SingleHeadModulation()
    layer.build((None, None, None, 9))
    kernels = [
        layers[0].kernel.shape[2:] for layers in (layer.query, layer.value_gate)
    ]
    assert kernels == [(9, 4), (9, 18)]


@thorough_on_jax
def test_half_precision():
    keras.utils.set_random_seed(0)
    layer, x = (
        SingleHeadModulation(4, 6, scale="rsqrt"),
        4 * random(1, 4, 5, 8),
    )
    half = SingleHeadModulation(4, 6, scale="rsqrt", dtype="mixed_float16")
    expected = to_numpy(layer(x, training=False))
    half.build(x.shape)
    half.set_weights(layer.get_weights())
    found = half(x, training=False)
    assert keras.backend.standardize_dtype(found.dtype) == "float16"
    np.testing.assert_allclose(
        to_numpy(found), expected, rtol=0, atol=0.02 * np.abs(expected).max()
    )


@pytest.mark.thorough
def test_layer():
    check_layer(
        lambda **more: SingleHeadModulation(4, 6, num_heads=2, **more),
        (2, 5, 6, 8),
        no_gradient={"key_norm/beta": "it moves all scores of a query alike"},
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_heads": 3}, "num_heads must divide.*num_heads=3, channels=4"),
        ({"key_dim": 0}, "key_dim=0"),
        ({"value_dim": 0}, "value_dim=0"),
    ],
)
def test_errors(arguments, text):
    written = {"name": "single_head_modulation", **arguments}
    with pytest.raises(ValueError, match=text):
        attention.make(written)(random(1, 3, 5, 8))
