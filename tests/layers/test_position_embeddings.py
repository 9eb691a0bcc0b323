"""Positions that follow the size of a grid, and tokens back and forth."""

import keras
import numpy as np
import pytest

from kanets.layers import PositionEmbeddings, SplitTokens
from tests.backends import BACKEND, to_numpy
from tests.layer_checks import check_layer, fill_weights, random
from tests.layers.test_resize_like import interpolate


@pytest.mark.parametrize(
    "class_token", [True, pytest.param(False, marks=pytest.mark.thorough)]
)
def test_checks_of_every_layer(class_token):
    check_layer(
        lambda **more: PositionEmbeddings((4, 3), class_token, **more),
        (2, 4, 3, 6),
        grids=((1, 1), (5, 7)),
        opt_out={"open_sizes": "tokens are no grid: see below"}
        if class_token
        else None,
    )


@pytest.mark.parametrize("grid", [(4, 3), (1, 1), (7, 2)])
def test_by_hand_and_back(grid):
    layer = PositionEmbeddings((4, 3), class_token=True)
    x = random(2, *grid, 6)
    layer.build((None, None, None, 6))
    fill_weights(layer.weights, layer.name)
    positions, token = (to_numpy(w) for w in layer.weights)
    expected = x + interpolate(positions, grid)
    tokens = layer(x)
    assert tuple(tokens.shape) == (2, 1 + grid[0] * grid[1], 6)
    shape = layer.compute_output_shape((None, *x.shape[1:]))
    assert shape == (None, *tokens.shape[1:])
    first, maps = SplitTokens()([tokens, np.zeros((2, *grid, 1))])
    np.testing.assert_allclose(to_numpy(maps), expected, atol=1e-5)
    np.testing.assert_array_equal(
        to_numpy(first), np.broadcast_to(token[:, 0], (2, 6))
    )


def test_tokens_are_split_in_a_graph():
    maps = keras.Input((3, None, 4))
    tokens = PositionEmbeddings((3, 3), True)(maps)
    assert tokens.shape == (None, None, 4)
    token, cells = SplitTokens()([tokens, maps])
    assert token.shape == (None, 4) and cells.shape == (None, 3, None, 4)
    model = keras.Model(maps, [token, cells])
    x = random(2, 3, 5, 4)
    copy = keras.Model.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    function = copy
    if BACKEND == "tensorflow":  # a graph whose size really is open
        import tensorflow as tf

        open_shape = tf.TensorSpec(maps.shape, tf.float32)
        function = tf.function(copy, input_signature=[open_shape])
    for one, other in zip(model(x), function(x), strict=True):
        np.testing.assert_allclose(to_numpy(one), to_numpy(other), atol=1e-6)


@pytest.mark.parametrize(
    ("grid", "text"),
    [
        ((0, 3), r"grid\[0\] must be a positive integer. .*grid\[0\]=0"),
        ((2,), r"\(height, width\). Received: grid=\(2,\)"),
        (4, "Received: grid=4"),
    ],
)
def test_bad_grids_are_named(grid, text):
    with pytest.raises(ValueError, match=text):
        PositionEmbeddings(grid)
    with pytest.raises(ValueError, match="expected ndim=4"):
        PositionEmbeddings((2, 2))(random(2, 4, 3))
