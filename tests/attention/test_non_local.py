"""The non-local operator, by each of its four similarities."""

import keras
import numpy as np
import pytest

from kanets import attention
from kanets.attention import NonLocalAttention, non_local_attention
from kanets.attention.non_local import SIMILARITIES
from kanets.layers import residual_attention
from tests.backends import few_on_jax, thorough_on_jax, to_numpy
from tests.layer_checks import check_layer, fill_weights, random

PAIR = random(2, 6, seed=7)


def by_loops(query, key, value, similarity, num_heads, scale, pair):
    query, key, value = (t.astype("float64") for t in (query, key, value))
    batch, queries, features = query.shape
    keys, size = key.shape[1], features // num_heads
    width = value.shape[-1] // num_heads
    output = np.zeros((batch, queries, value.shape[-1]))
    weights = np.zeros((batch, num_heads, queries, keys))
    for b, n, i in np.ndindex(batch, num_heads, queries):
        part = slice(n * size, (n + 1) * size)
        row = np.zeros(keys)
        for j in range(keys):
            one, other = query[b, i, part], key[b, j, part]
            if similarity == "concatenation":
                both = np.concatenate([one, other])
                weight = np.concatenate([pair[0, part], pair[1, part]])
                row[j] = max(0, both @ weight) / keys
            else:
                row[j] = one @ other * scale
        if similarity == "dot_product":
            row /= keys
        elif similarity != "concatenation":
            row = np.exp(row - row.max())
            row = row / row.sum()
        weights[b, n, i] = row
        columns = slice(n * width, (n + 1) * width)
        output[b, i, columns] = row @ value[b][:, columns]
    return output, weights


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(
    ("sizes", "num_heads"), few_on_jax([((5, 3), 1), ((4, 7), 2), ((1, 1), 1)])
)
def test_equals_loops(sizes, num_heads, similarity):
    queries, keys = sizes
    query, key = random(2, queries, 6), random(2, keys, 6, seed=1)
    value = random(2, keys, 4, seed=2)
    pair = PAIR if similarity == "concatenation" else None
    found = non_local_attention(
        query, key, value, similarity, num_heads, 0.7, pair
    )
    expected = by_loops(query, key, value, similarity, num_heads, 0.7, pair)
    for actual, array in zip(found, expected, strict=True):
        np.testing.assert_allclose(to_numpy(actual), array, atol=1e-5)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@thorough_on_jax
def test_half_precision(similarity):
    """Products of 40 are beyond what float16 counts."""
    query, key = ((40 * random(1, 9, 6, seed=s)) for s in (0, 1))
    arrays = [t.astype("float16") for t in (query, key, random(1, 9, 4))]
    pair = PAIR if similarity == "concatenation" else None
    found, weights = non_local_attention(*arrays, similarity, 1, 0.1, pair)
    expected, shares = by_loops(*arrays, similarity, 1, 0.1, pair)
    assert keras.backend.standardize_dtype(found.dtype) == "float16"
    assert keras.backend.standardize_dtype(weights.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(weights), shares, rtol=1e-3, atol=1e-3)
    largest = np.abs(expected).max()
    np.testing.assert_allclose(
        to_numpy(found), expected, rtol=0, atol=5e-3 * largest
    )


@pytest.mark.parametrize("similarity", SIMILARITIES)
@thorough_on_jax
def test_a_block_is_the_operator_with_its_maps(similarity):
    """Of pooled keys and values, and with the input added."""
    layer = NonLocalAttention(
        2, similarity, reduction=2, pool_size=2, residual=True
    )
    x = random(1, 5, 4, 8)
    layer.build(x.shape)
    fill_weights(layer.weights, layer.name)

    def mapped(name):
        linear = getattr(layer, name)
        if linear is None:
            return x
        return x @ to_numpy(linear.kernel)[0, 0] + to_numpy(linear.bias)

    def tokens(array):
        return array.reshape(1, -1, array.shape[-1])

    def pooled(array):  # the last row fills no window
        blocks = array[:, :4].reshape(1, 2, 2, 2, 2, -1)
        return tokens(blocks.max((2, 4)))

    pair = None if layer.pair is None else to_numpy(layer.pair)
    found, _ = by_loops(
        tokens(mapped("query")),
        pooled(mapped("key")),
        pooled(mapped("value")),
        similarity,
        2,
        1.0,
        pair,
    )
    kernel = to_numpy(layer.output_map.kernel)[0, 0]
    found = found @ kernel + to_numpy(layer.output_map.bias)
    np.testing.assert_allclose(
        to_numpy(layer(x)), x + found.reshape(x.shape), atol=1e-5
    )


@pytest.mark.parametrize("similarity", SIMILARITIES)
@thorough_on_jax
def test_maps(similarity):
    """Sizes of weights among all, also where all are zero."""
    layer = NonLocalAttention(similarity=similarity, pool_size=2)
    x = random(1, 5, 6, 8)
    layer.build(x.shape)
    fill_weights(layer.weights, layer.name)
    _, scores = layer(x, return_attention_scores=True)
    row = np.abs(to_numpy(scores)[0, 0, 6 * 3 + 1])
    assert row.any()
    expected = np.repeat(np.repeat(row.reshape(2, 3), 2, 0), 2, 1) / 4
    maps = layer.attention_maps(x, (3, 1))[0, 0]
    np.testing.assert_allclose(maps[:4], expected / row.sum(), atol=1e-6)
    assert not maps[4].any()
    if similarity == "concatenation":
        layer.pair.assign(0 * PAIR[:, :4])
        for name in ("query", "key"):
            getattr(layer, name).bias.assign([0.0] * 4)
        maps = layer.attention_maps(x, (3, 1))[0, 0]
        np.testing.assert_allclose(maps[:4], 1 / 24, atol=1e-6)


def test_a_residual_of_its_own_is_closed_by_a_second_norm():
    x = keras.Input((5, 6, 8))
    written = {"name": "non_local", "residual": True}
    model = keras.Model(x, residual_attention(x, written, name="new"))
    assert [layer.name for layer in model.layers[1:]] == [
        "new_norm",
        "new",
        "new_scale",
        "new_add",
    ]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("similarity", "more", "no_gradient"),
    [
        ("gaussian", {"pool_size": 2}, {}),
        (
            "embedded_gaussian",
            {"num_heads": 2},
            {"key/bias": "it moves all scores of a query alike"},
        ),
        ("dot_product", {"residual": True}, {}),
        ("concatenation", {"pool_size": 3, "num_heads": 2}, {}),
    ],
)
def test_layer(similarity, more, no_gradient):
    check_layer(
        lambda **given: NonLocalAttention(
            similarity=similarity, **more, **given
        ),
        (2, 5, 6, 8),
        no_gradient=no_gradient,
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"similarity": "gauss"}, "similarity must be.*similarity=.gauss"),
        ({"reduction": 0}, "reduction=0"),
        ({"pool_size": 0}, "pool_size=0"),
        ({"num_heads": 3}, "num_heads must divide.*num_heads=3, channels=4"),
    ],
)
def test_errors(arguments, text):
    written = {"name": "non_local", **arguments}
    with pytest.raises(ValueError, match=text):
        attention.make(written)(random(1, 3, 5, 8))


@pytest.mark.parametrize(
    ("similarity", "pair"), [("concatenation", None), ("dot_product", PAIR)]
)
def test_what_pairs_are_weighted_with(similarity, pair):
    x = random(1, 3, 6)
    with pytest.raises(ValueError, match=f"pair is of.*='{similarity}'"):
        non_local_attention(x, x, x, similarity, pair=pair)
