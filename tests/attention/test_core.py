"""What all mechanisms rest on: one product, one mask, one softmax."""

import keras
import numpy as np
import pytest

from kanets.attention import attend
from kanets.attention.core import HIDDEN, masked_softmax, scores
from kanets.attention.grid import average_pool
from tests.backends import BACKEND, gradient, to_numpy
from tests.layer_checks import random


def by_loops(query, key, value, visible, bias, scale):
    """Query by query in float64; what sees nothing gets zeros."""
    output = np.zeros((*query.shape[:-1], value.shape[-1]))
    for row in np.ndindex(query.shape[:-1]):
        outer = row[:-1]
        logits = scale * key[outer].astype("float64") @ query[row] + bias[row]
        keys = np.flatnonzero(visible[row])
        if len(keys):
            weights = np.exp(logits[keys] - logits[keys].max())
            weights = weights / weights.sum()
            output[row] = weights @ value[outer][keys]
    return output


@pytest.mark.parametrize("outer", [(2,), (2, 3), (1, 2, 3)], ids=str)
def test_equals_the_formula_written_as_loops(outer):
    query, key = random(*outer, 5, 4), random(*outer, 7, 4, seed=1)
    value = random(*outer, 7, 3, seed=2)
    bias = random(*outer, 5, 7, seed=3)
    visible = random(*outer, 5, 7, seed=4) > 0
    visible[..., 2, :] = False
    output, weights = attend(
        *map(keras.ops.convert_to_tensor, (query, key, value)),
        visible,
        bias,
        0.5,
        rows_may_be_empty=True,
    )
    expected = by_loops(query, key, value, visible, bias, 0.5)
    np.testing.assert_allclose(to_numpy(output), expected, atol=1e-5)
    assert np.all(to_numpy(weights)[~visible] == 0)


def test_a_row_that_sees_nothing_has_a_finite_gradient():
    visible = np.array([[True, False, True], [False] * 3])
    (slope,) = gradient(
        lambda x: keras.ops.sum(masked_softmax(x, visible, True) ** 2),
        random(2, 3),
    )
    assert np.abs(slope[0, 0]) > 1e-3 and np.all(slope[~visible] == 0)
    assert np.all(np.isfinite(slope))


def test_the_least_score_is_of_float32():
    assert np.isfinite(np.float32(HIDDEN))
    weights = masked_softmax(
        keras.ops.convert_to_tensor([[1e30, -1e38]]),
        np.array([[False, True]]),
    )
    np.testing.assert_array_equal(to_numpy(weights), [[0, 1]])


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        ("float16", "float32"),
        ("bfloat16", "float32"),
        pytest.param(
            "float64",
            "float64",
            marks=pytest.mark.skipif(
                BACKEND != "tensorflow", reason="Keras has none elsewhere"
            ),
        ),
    ],
)
def test_scores_are_wide(dtype, wide):
    x = keras.ops.cast(300 * np.ones((1, 2, 4)), dtype)  # float16: 360000
    found = scores(x, x)
    assert keras.backend.standardize_dtype(found.dtype) == wide
    np.testing.assert_allclose(to_numpy(found), 360000, rtol=1e-2)
    output, _ = attend(x, x, x)
    assert keras.backend.standardize_dtype(output.dtype) == dtype


@pytest.mark.parametrize("pool_size", [1, 2, 3])
def test_pooled_means_are_of_the_cells_there_are(pool_size):
    x = random(2, 7, 5, 3)
    found = to_numpy(average_pool(keras.ops.convert_to_tensor(x), pool_size))
    cells = [  # of each window along an axis; "same" pads more at the end
        [range(n)[max(0, start) : start + pool_size] for start in starts]
        for n in (7, 5)
        for starts in [range(-(-n % pool_size // 2), n, pool_size)]
    ]
    for i, rows in enumerate(cells[0]):
        for j, columns in enumerate(cells[1]):
            expected = x[:, rows][:, :, columns].mean((1, 2))
            np.testing.assert_allclose(found[:, i, j], expected, atol=1e-6)
    assert found.shape == (2, len(cells[0]), len(cells[1]), 3)
