"""Separable self-attention: weights of cells, within the places of a patch."""

import keras
import numpy as np
import pytest

from kanets import attention
from kanets.attention import SeparableAttention, separable_attention
from tests.backends import few_on_jax, thorough_on_jax, to_numpy
from tests.layer_checks import check_layer, fill_weights, random


def by_loops(query, key, value, patch_size):
    """Values times the weighted keys of the cells at the same place."""
    batch, height, width, heads = query.shape
    size = key.shape[-1] // heads
    output = np.zeros(value.shape)
    weights = np.zeros((batch, heads, *2 * (height * width,)))
    for b, i, j, n in np.ndindex(batch, height, width, heads):
        part = slice(n * size, (n + 1) * size)
        seen = [
            (r, c)
            for r in range(i % patch_size, height, patch_size)
            for c in range(j % patch_size, width, patch_size)
        ]
        shares = np.exp([query[b, r, c, n] for r, c in seen])
        shares = shares / shares.sum()
        context = sum(
            s * key[b, r, c, part]
            for s, (r, c) in zip(shares, seen, strict=True)
        )
        output[b, i, j, part] = np.maximum(value[b, i, j, part], 0) * context
        for share, (r, c) in zip(shares, seen, strict=True):
            weights[b, n, i * width + j, r * width + c] = share
    return output, weights


@pytest.mark.parametrize(
    ("grid", "patch_size", "heads"),
    few_on_jax(
        [((3, 5), 1, 1), ((5, 4), 2, 2), ((1, 1), 2, 1), ((2, 7), 3, 1)]
    ),
)
def test_equals_loops(grid, patch_size, heads):
    query = random(2, *grid, heads)
    key, value = random(2, *grid, 4, seed=1), random(2, *grid, 4, seed=2)
    found = separable_attention(query, key, value, patch_size, True)
    expected = by_loops(query, key, value, patch_size)
    for actual, array in zip(found, expected, strict=True):
        np.testing.assert_allclose(to_numpy(actual), array, atol=1e-6)
    alone = separable_attention(query, key, value, patch_size)
    np.testing.assert_array_equal(to_numpy(alone), to_numpy(found[0]))


def test_large_scores_in_half_precision():
    """A place whose scores are far below another's has weights, too."""
    query = np.zeros((1, 4, 4, 1), "float16")
    query[:, ::2] = 6e4
    key, value = random(1, 4, 4, 2), np.ones((1, 4, 4, 2))
    found = separable_attention(
        query, key.astype("float16"), value.astype("float16"), 2
    )
    expected = np.tile(key.reshape(1, 2, 2, 2, 2, 2).mean((1, 3)), (1, 2, 2, 1))
    assert keras.backend.standardize_dtype(found.dtype) == "float16"
    np.testing.assert_allclose(to_numpy(found), expected, atol=2e-3)


@thorough_on_jax
def test_maps_of_a_patch():
    layer, x = SeparableAttention(2, patch_size=2), random(1, 5, 6, 4)
    layer.build(x.shape)
    fill_weights(layer.weights, layer.name)
    maps = layer.attention_maps(x, (3, 4))
    assert np.all(maps[:, :, 1::2, ::2] > 0)
    assert np.count_nonzero(maps) == 2 * 2 * 3


@pytest.mark.thorough
@pytest.mark.parametrize("patch_size", [1, 2])
def test_layer(patch_size):
    check_layer(
        lambda **more: SeparableAttention(2, patch_size, **more), (2, 5, 6, 8)
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_heads": 3}, "num_heads must divide.*num_heads=3, channels=8"),
        ({"patch_size": 0}, "patch_size=0"),
        ({"patch": 2}, "nearest: patch_size"),
    ],
)
def test_errors(arguments, text):
    with pytest.raises(ValueError, match=text):
        attention.make({"name": "separable", **arguments})(random(1, 3, 5, 8))


def test_heads_of_the_operator():
    with pytest.raises(ValueError, match="num_heads=3, channels=8"):
        separable_attention(random(1, 2, 3, 3), *2 * [random(1, 2, 3, 8)])
