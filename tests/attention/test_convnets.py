"""The attention of compact nets: multi-query, linear and single-head."""

from pathlib import Path

import numpy as np
import pytest
from keras import ops

from kanets import attention
from kanets.attention import (
    LinearAttention,
    MultiQueryAttention,
    SingleHeadAttention,
    linear_attention,
    multi_query,
    multi_query_attention,
)
from tests.attention import golden_convnets
from tests.attention.references import cases
from tests.backends import thorough_on_jax, to_numpy
from tests.layer_checks import check_layer, fill_weights, random

FILE = Path(__file__).parent.parent / "golden" / "convnet_tokens.npz"
CASES = cases(FILE)
ROWS = np.float32([10, 20]).reshape(1, 2, 1, 1)


@pytest.mark.parametrize("case", CASES)
@thorough_on_jax
def test_equals_the_published_code(case):
    found = golden_convnets.differences(case, CASES[case])
    assert max(found.values()) < 1e-5, found


def softmax(x):
    x = np.exp(x - x.max())
    return x / x.sum()


def test_all_heads_look_at_the_same_keys():
    query, key, value = (
        random(2, 3, 5, 8),
        random(2, 2, 3, 4),
        random(2, 2, 3, 6),
    )
    output, weights = multi_query_attention(query, key, value, 2, "rsqrt")
    for b, i, j, n in np.ndindex(2, 3, 5, 2):
        keys, values = key[b].reshape(6, 4), value[b].reshape(6, 6)
        shares = softmax(keys @ query[b, i, j, 4 * n : 4 * n + 4] / 2)
        np.testing.assert_allclose(
            to_numpy(weights)[b, n, 5 * i + j], shares, atol=1e-6
        )
        found = to_numpy(output)[b, i, j, 6 * n : 6 * n + 6]
        np.testing.assert_allclose(found, shares @ values, atol=1e-5)


def test_rectified_products_are_the_weights():
    query, key, value = (
        random(2, 7, 3),
        random(2, 7, 3, seed=1),
        random(2, 7, 4),
    )
    output, weights = linear_attention(query, key, value, True)
    for b, i in np.ndindex(2, 7):
        products = np.maximum(key[b], 0) @ np.maximum(query[b, i], 0)
        shares = products / (products.sum() + 1e-5)
        np.testing.assert_allclose(to_numpy(weights)[b, i], shares, atol=1e-6)
        np.testing.assert_allclose(
            to_numpy(output)[b, i], shares @ value[b], atol=1e-5
        )
    blind = to_numpy(linear_attention(-np.abs(query), key, value))
    np.testing.assert_array_equal(blind, 0.0)


def test_other_channels_pass_the_head():
    """Without the last map what does not attend comes out rectified."""
    layer = SingleHeadAttention(4, key_dim=3)
    x = random(1, 3, 5, 8)
    layer.build(x.shape)
    linear, _ = layer.output_map
    linear.kernel.assign(np.eye(8)[None, None])
    found = to_numpy(layer(x, training=False)) * np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(found[..., 4:], np.maximum(x[..., 4:], 0), 1e-5)
    assert np.abs(found[..., :4] - np.maximum(x[..., :4], 0)).max() > 0.1


@pytest.mark.parametrize(
    ("stride", "padding", "starts"),
    [
        (2, "symmetric", ((-1, 1, 3), (-1, 1, 3, 5, 7))),
        (3, "symmetric", ((-2, 1, 4), (-2, 1, 4, 7))),
        (2, "same", ((0, 2, 4), (-1, 1, 3, 5, 7))),
    ],
)
@thorough_on_jax
def test_maps_of_strided_keys(stride, padding, starts):
    """A key stands for the cells of the window that it is made of."""
    layer = MultiQueryAttention(2, key_stride=stride, padding=padding)
    x = random(1, 6, 9, 4)
    layer.build(x.shape)
    fill_weights(layer.weights, layer.name)
    _, scores = layer(x, return_attention_scores=True)
    keys = to_numpy(scores)[0, :, 4 * 9 + 7]
    keys = keys.reshape(2, *map(len, starts))
    expected = np.zeros((2, 6, 9))
    for i, j in np.ndindex(keys.shape[1:]):
        rows = slice(max(0, starts[0][i]), starts[0][i] + 3)
        columns = slice(max(0, starts[1][j]), starts[1][j] + 3)
        area = expected[0, rows, columns].size
        expected[:, rows, columns] += keys[:, i, j, None, None] / area
    maps = layer.attention_maps(x, (4, 7))[0]
    np.testing.assert_allclose(maps, expected, atol=1e-6)


@pytest.mark.parametrize("size", [5, 6, 7, 8])
def test_results_of_strided_queries_lie_on_their_windows(size):
    """A cell moves nothing but what its window and those beside it answer."""
    layer = MultiQueryAttention(query_stride=4)
    x = random(1, size, 4, 4)
    layer.build(x.shape)
    fill_weights(layer.weights, layer.name)
    layer.query_norm.moving_variance.assign(np.ones(4))
    # In the middle of a window bilinear interpolation gives its answer alone
    # or nearly so: the share of the next one is 1/8.
    before = -size % 4 // 2
    scores = to_numpy(layer(x, return_attention_scores=True)[1])[0, 0]
    for row in range(size):
        maps = layer.attention_maps(x, (row, 0))[0, 0]
        np.testing.assert_allclose(
            maps.ravel(), scores[(row + before) // 4], atol=1e-6
        )
    pooled = to_numpy(multi_query._enlarged(ops.array(ROWS), 4, x))[0, :, 0, 0]
    middles = np.arange(2) * 4 + 1.5 - before
    expected = np.interp(np.arange(size), middles, [10.0, 20.0])
    np.testing.assert_allclose(pooled, expected, atol=1e-5)


@thorough_on_jax
def test_maps_where_a_scale_looks_nowhere():
    layer = LinearAttention(2)
    x = random(1, 5, 7, 4)
    sums = [
        layer.attention_maps(x, (i, j)).sum((2, 3)) for i, j in np.ndindex(5, 7)
    ]
    np.testing.assert_allclose(sums, 1, atol=1e-5)


@thorough_on_jax
def test_windows_of_padding_alone():
    """A stride beyond the kernel: the first window holds zeros alone."""
    layer = MultiQueryAttention(2, key_stride=8)
    maps = layer.attention_maps(random(1, 5, 9, 4), (2, 2))
    np.testing.assert_allclose(maps.sum((2, 3)), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "no_gradient"),
    [
        (
            lambda **k: MultiQueryAttention(2, 4, 3, 2, 2, use_bias=True, **k),
            {
                "key/bias": "it moves all scores of a query alike",
                "key_norm/beta": "as the bias",
            },
        ),
        # Small heads see little of half precision: few entries are positive.
        (lambda **k: LinearAttention(2, 16, (3, 5), 6, **k), {}),
        (
            lambda **k: SingleHeadAttention(4, 6, num_heads=2, **k),
            {"/norm/beta": "the next norm takes it off"},
        ),
    ],
)
@pytest.mark.thorough
def test_layer(make, no_gradient):
    check_layer(make, (2, 5, 6, 8), no_gradient=no_gradient)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ({"name": "multi_query", "num_heads": 3}, "divide.*channels=8"),
        ({"name": "multi_query", "kernel_size": 4}, "odd.*kernel_size=4"),
        ({"name": "multi_query", "padding": "valid"}, "padding='valid'"),
        ({"name": "multi_query", "key_stride": 0}, "key_stride=0"),
        ({"name": "multi_query", "value_dim": 0}, "value_dim=0"),
        ({"name": "linear", "kernel_sizes": [4]}, r"odd.*sizes=\[4\]"),
        ({"name": "linear", "num_heads": 3}, "num_heads=3, channels=8"),
        ({"name": "linear", "output_channels": 0}, "output_channels=0"),
        ({"name": "single_head", "partial_channels": 9}, "channels=9"),
        ({"name": "single_head", "num_heads": 3}, "num_heads=3"),
        ({"name": "single_head", "key_dim": 0}, "key_dim=0"),
    ],
    ids=str,
)
def test_errors(written, text):
    with pytest.raises(ValueError, match=text):
        attention.make(written)(random(1, 3, 5, 8))


@pytest.mark.parametrize("name", ["multi_query", "linear", "single_head"])
def test_what_is_no_picture(name):
    layer = attention.make(name)
    with pytest.raises(ValueError, match=r"known channels.*\(2, 6, 8\)"):
        layer(random(2, 6, 8))
    layer.build((None, None, None, 8))
    mask = np.ones((2, 3, 5), bool)
    with pytest.raises(ValueError, match="takes no mask"):
        layer(random(2, 3, 5, 8), mask=mask)


def test_queries_of_another_width():
    x = random(1, 2, 3, 8)
    with pytest.raises(ValueError, match=r"num_heads times.*num_heads=3"):
        multi_query_attention(x, x, x, 3)
