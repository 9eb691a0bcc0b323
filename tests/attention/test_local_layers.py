"""The layers of windows and neighbourhoods, alone and in nets."""

import keras
import numpy as np
import pytest

import kanets
from kanets import attention
from kanets.attention import NeighborhoodAttention, WindowAttention
from tests.backends import needs_tensorflow, to_numpy
from tests.layer_checks import check_layer, fill_weights, random

LAYERS = {
    "window": (
        WindowAttention,
        {"window_size": (3, 5), "dilation": [[1, 1], [2, 1]], "num_heads": 2},
    ),
    "global": (
        WindowAttention,
        {"window_size": 3, "num_global": 2, "projections": "v"},
    ),
    "neighborhood": (
        NeighborhoodAttention,
        {
            "kernel_size": (3, 5),
            "dilation": 2,
            "stride": [1, 2],
            "causal": [True, False],
            "clip": True,
            "num_heads": 2,
            "key_dim": 3,
        },
    ),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param("window", marks=pytest.mark.thorough), "neighborhood"],
)
def test_checks_of_every_layer(name):
    kind, arguments = LAYERS[name]
    check_layer(lambda **more: kind(**arguments, **more), (2, 6, 7, 4))


def test_without_global_cells_it_is_a_window():
    """A mask of truth values names none, and none is no mistake."""
    x, mask = random(2, 9, 4), random(2, 9, seed=1) < 1
    kind, arguments = LAYERS["global"]
    layer, plain = kind(**arguments), WindowAttention(3, projections="v")
    layer.build(x.shape)
    plain.build(x.shape)
    fill_weights(layer.weights, layer.name)
    plain.set_weights(layer.get_weights()[:1])
    for given in ({}, {"mask": mask}, {"mask": mask.astype("int32")}):
        found = to_numpy(layer(x, **given))
        expected = to_numpy(plain(x, **given))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_global_cells_beyond_their_number_are_local():
    x, mask = random(1, 9, 4), np.ones((1, 9), "int32")
    layer = WindowAttention(3, num_global=1)
    mask[0, [2, 6]] = 2
    _, weights = layer(x, mask=mask, return_attention_scores=True)
    seen = to_numpy(weights)[0, 0] > 0
    assert seen[2].all() and seen[:, 2].all()
    np.testing.assert_array_equal(np.flatnonzero(seen[6]), [2, 5, 6, 7])


def test_a_zero_start_is_zero_at_global_cells():
    layer = WindowAttention(3, num_global=1, projections="qkv")
    assert layer.start_at_zero()
    mask = np.full((1, 5), 2)
    assert np.all(to_numpy(layer(random(1, 5, 4), mask=mask)) == 0)


@pytest.mark.parametrize("name", ["window", "neighborhood"])
def test_padding_changes_nothing(name):
    """But what is near is shifted inside of the grid, not of the mask."""
    x, mask = random(2, 8, 7, 4), np.ones((2, 8, 7), bool)
    mask[:, 5:], mask[0, :, 4:] = False, False
    kind, arguments = LAYERS[name]
    layer = kind(**arguments, use_bias=True)
    layer.build(x.shape)
    fill_weights(layer.weights, layer.name)
    found = to_numpy(layer(x, mask=mask))
    assert np.all(found[~mask] == 0) and np.abs(found[mask]).min() > 0
    x[~mask] = 9
    np.testing.assert_allclose(to_numpy(layer(x, mask=mask)), found, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_maps_are_the_scores_of_a_cell(name):
    x = random(2, 6, 7, 4)
    kind, arguments = LAYERS[name]
    layer = kind(**arguments)
    _, scores = layer(x, return_attention_scores=True)
    for position in ((0, 6), (3, 2)):
        maps = layer.attention_maps(x, position)
        expected = to_numpy(scores)[:, :, position[0] * 7 + position[1]]
        np.testing.assert_allclose(
            maps.reshape(expected.shape), expected, atol=1e-6
        )


@needs_tensorflow
def test_in_a_sequence_of_any_length():
    """One graph for all, with the mask of Longformer."""
    import tensorflow as tf

    layer = WindowAttention(5, num_heads=2, num_global=2)
    layer.build((None, None, 4))
    fill_weights(layer.weights, layer.name)
    function = tf.function(
        lambda x, mask: layer(x, mask=mask),
        input_signature=[
            tf.TensorSpec((None, None, 4)),
            tf.TensorSpec((None, None), tf.int32),
        ],
    )
    for batch, length in ((1, 3), (2, 17)):
        x = random(batch, length, 4)
        mask = np.random.default_rng(0).integers(0, 3, (batch, length))
        mask = mask.astype("int32")
        expected = to_numpy(layer(x, mask=mask))
        found = to_numpy(function(x, mask))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_both_spellings():
    layer = attention.make({"name": "neighbourhood", "kernel_size": 3})
    assert isinstance(layer, NeighborhoodAttention) and layer.clip


@pytest.mark.parametrize("name", ["window", "neighborhood"])
def test_inserted_and_saved(name, tmp_path):
    body = keras.Sequential(
        [keras.Input((7, 8, 3)), keras.layers.Conv2D(8, 3, name="conv")]
    )
    net = kanets.insert_attention(
        body, "conv", attention={"name": name, "num_heads": 2}
    )
    check_copy(net, name, tmp_path / "net.keras")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["window", "neighborhood"])
def test_by_name_in_nets(name, tmp_path):
    written = {"name": name, "num_heads": 2}
    strides = (2, 1, 2, 2, 1)
    net = kanets.KANet(
        (32, 32, 3), 0.05, attention=written, classes=3, strides=strides
    )
    check_copy(net, name, tmp_path / "net.keras")
    net = kanets.EfficientNetLite(
        (32, 32, 3), classes=2, attention=written, weights=None
    )
    check_copy(net, name, tmp_path / "net.keras")


def check_copy(net, name, path):
    """It is there, and the file says the same."""
    x = random(2, *net.input.shape[1:])
    fill_weights(net.weights)
    net.save(path)
    loaded = keras.saving.load_model(path)
    found, expected = (to_numpy(m(x, training=False)) for m in (loaded, net))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    layers = [getattr(layer, "attention", layer) for layer in loaded.layers]
    assert any(isinstance(layer, LAYERS[name][0]) for layer in layers)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: WindowAttention(4),
            "window_size must be odd.*Received: window_size=4",
        ),
        (
            lambda: WindowAttention((3, 0)),
            r"a positive integer, or one for each axis .*window_size=\(3, 0\)",
        ),
        (
            lambda: WindowAttention((3, 5)).build((None, 8, 4)),
            r"each of 1 axes .*Received: window_size=\[3, 5\]",
        ),
        (
            lambda: WindowAttention(causal=[False, 1]),
            r"True or False.*causal=\[False, 1\]",
        ),
        (
            lambda: WindowAttention(dilation=[[1], [2]], num_heads=3),
            "for each of them. Received: 2 values, num_heads=3",
        ),
        (
            lambda: WindowAttention(num_global=-1),
            "num_global must be an integer >= 0. Received: num_global=-1",
        ),
        (
            lambda: WindowAttention(causal=True, num_global=1),
            "no global cells. Received: causal=True, num_global=1",
        ),
        (
            lambda: NeighborhoodAttention(3, stride=4).build((None, 8, 4)),
            "stride must be at most kernel_size. Received: stride=4, ker",
        ),
        (
            lambda: NeighborhoodAttention(3, dilation=3)(random(1, 9, 8, 4)),
            "Received: kernel_size=3, dilation=3, size=8",
        ),
        (
            lambda: NeighborhoodAttention(7)(keras.Input((5, 8, 4))),
            "size of the axis. Received: kernel_size=7, dilation=1, size=5",
        ),
        (
            lambda: attention.neighborhood_mask((5,), 7),
            "Received: kernel_size=7, dilation=1, size=5",
        ),
        (
            lambda: attention.window_attention(*[random(1, 8, 4)] * 3),
            r"of one shape .*query=\(1, 8, 4\)",
        ),
        (
            lambda: attention.window_attention(
                random(1, 8, 2, 4), random(1, 8, 2, 4), random(1, 7, 2, 4)
            ),
            r"the key's grid and heads.*value=\(1, 7, 2, 4\)",
        ),
        (
            lambda: attention.window_attention(
                *[random(1, 8, 2, 4)] * 3, mask=np.ones((1, 7), bool)
            ),
            r"mask must be .*mask.shape=\(1, 7\)",
        ),
    ],
)
def test_bad_arguments_are_named(make, text):
    with pytest.raises(ValueError, match=text):
        make()
