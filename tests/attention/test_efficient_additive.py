"""Efficient additive attention: lengths, a weighted sum of queries, keys."""

import keras
import numpy as np
import pytest

from kanets import attention
from kanets.attention import (
    EfficientAdditiveAttention,
    efficient_additive_attention,
)
from tests.backends import dot, gradient, thorough_on_jax, to_numpy
from tests.layer_checks import check_layer, random


def by_loops(query, key, weight):
    output = np.zeros(key.shape)
    weights = np.zeros(key.shape[:2])
    for b in range(len(query)):
        tokens = [q / np.linalg.norm(q) for q in query[b].astype("float64")]
        scores = np.array([t @ weight for t in tokens])
        weights[b] = scores / np.linalg.norm(scores)
        total = sum(w * t for w, t in zip(weights[b], tokens, strict=True))
        for i, k in enumerate(key[b].astype("float64")):
            output[b, i] = k / np.linalg.norm(k) * total
    return output, weights


@pytest.mark.parametrize("tokens", [1, 7])
def test_equals_loops(tokens):
    query, key, weight = random(2, tokens, 5), random(2, tokens, 5), random(5)
    output, unit, weights = efficient_additive_attention(query, key, weight)
    expected = by_loops(query, key, weight)
    np.testing.assert_allclose(to_numpy(output), expected[0], atol=1e-6)
    np.testing.assert_allclose(to_numpy(weights), expected[1], atol=1e-6)
    lengths = np.linalg.norm(to_numpy(unit), axis=-1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)


def test_tokens_of_length_zero():
    """As of a padded picture: no answer, and no gradient without end."""
    query, weight = random(1, 3, 4), random(4)
    query[:, 1] = 0

    def loss(query, key):
        found, _, _ = efficient_additive_attention(query, key, weight)
        return dot(found, random(1, 3, 4, seed=1))

    for found in gradient(loss, query, query):
        assert np.all(np.isfinite(found)) and np.abs(found).max() < 1e3
    output, _, weights = efficient_additive_attention(query, query, weight)
    assert not to_numpy(output)[:, 1].any()
    assert to_numpy(weights)[0, 1] == 0


def test_a_factor_of_the_weights_cancels():
    query, key, weight = (
        random(2, 5, 6),
        random(2, 5, 6, seed=1),
        random(6, seed=2),
    )
    found, expected = (
        to_numpy(efficient_additive_attention(query, key, w)[0])
        for w in (0.01 * weight, weight)
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_half_precision():
    """Squares of 300 overflow float16."""
    x = (300 * random(1, 6, 8)).astype("float16")
    found, _, _ = efficient_additive_attention(x, x, random(8))
    expected, _ = by_loops(x, x, random(8))
    assert keras.backend.standardize_dtype(found.dtype) == "float16"
    np.testing.assert_allclose(to_numpy(found), expected, atol=2e-3)


@thorough_on_jax
def test_all_cells_see_one_sum():
    layer = EfficientAdditiveAttention(2, key_dim=3)
    _, scores = layer(random(1, 3, 4, 6), return_attention_scores=True)
    scores = to_numpy(scores)
    assert scores.shape == (1, 2, 12, 12)
    np.testing.assert_array_equal(
        scores, np.broadcast_to(scores[:, :1, :1], scores.shape)
    )


@pytest.mark.thorough
def test_layer():
    check_layer(
        lambda **more: EfficientAdditiveAttention(2, 5, 6, **more),
        (2, 5, 6, 8),
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"key_dim": 0}, "key_dim=0"),
        ({"output_channels": 0}, "output_channels=0"),
        ({"num_heads": 0}, "num_heads=0"),
    ],
)
def test_errors(arguments, text):
    with pytest.raises(ValueError, match=text):
        attention.make({"name": "efficient_additive", **arguments})


def test_a_picture_of_zeros_is_seen_alike():
    layer = EfficientAdditiveAttention()
    _, scores = layer(np.zeros((1, 2, 3, 4)), return_attention_scores=True)
    np.testing.assert_allclose(to_numpy(scores), 1 / 6, rtol=1e-6)
