"""How every mechanism of the table is called, and drawn."""

import functools
import inspect
import json
import re

import keras
import numpy as np
import pytest

from kanets import attention
from tests.backends import BACKEND, to_numpy
from tests.layer_checks import fill_weights, random

CALL = (
    "query",
    "key",
    "value",
    "mask",
    "key_mask",
    "training",
    "return_attention_scores",
)
SHAPE = (2, 5, 6, 16)
SPARSE = {
    "sagan": lambda: attention.NonLocalAttention2D(2),
    "pooled": lambda: attention.LocalSparseAttention2D(4, pool_size=2),
    "superconcentrator": lambda: attention.SuperconcentratorAttention(4),
}
# Kernels of 7 would see all of so small a grid.
SMALL = dict.fromkeys(("cbam", "efficient_local"), {"kernel_size": 3})


def named(name):
    return attention.make({"name": name, **SMALL.get(name, {})})


ALL = {
    **{name: functools.partial(named, name) for name in attention.names()},
    **SPARSE,
}


# All cells alike: the gates of a cell are made of the means of the picture.
EVEN = {"squeeze_excitation", "efficient_channel"}

# JAX compiles each operation of the others for a second or more.
ON_JAX = {"kao_qkv", "kao_kv", "dense", "ylg", "window"}


@pytest.fixture(
    params=[
        pytest.param(
            name,
            marks=pytest.mark.thorough
            if BACKEND == "jax" and name not in ON_JAX
            else (),
        )
        for name in ALL
    ]
)
def layer(request):
    layer = ALL[request.param]()
    layer.looks_evenly = request.param in EVEN
    layer.build(SHAPE)
    fill_weights(layer.weights, layer.name)
    return layer


def test_names():
    assert {"kao_kv", "kao_qkv", "dense", "ylg"} <= set(attention.names())


def test_call(layer):
    assert tuple(inspect.signature(layer.call).parameters) == CALL
    x = random(*SHAPE)
    output = to_numpy(layer(x, key=None, value=None, training=False))
    assert output.shape == SHAPE
    again, scores = layer(x, return_attention_scores=True)
    np.testing.assert_allclose(to_numpy(again), output, atol=1e-6)
    assert scores.shape[:2] == (2, layer.num_heads)
    np.testing.assert_allclose(to_numpy(scores).sum(-1), 1, atol=1e-5)
    symbolic = layer(keras.Input(SHAPE[1:]), return_attention_scores=True)
    assert [t.shape for t in symbolic] == [
        (None, *SHAPE[1:]),
        (None, *scores.shape[1:]),
    ]
    assert symbolic[1].dtype == "float32"


@pytest.mark.parametrize("name", ["key", "value", "key_mask"])
def test_a_grid_attends_to_itself(layer, name):
    for x in (random(*SHAPE), keras.Input(SHAPE[1:])):
        with pytest.raises(ValueError, match=f"each other.*Received: {name}, "):
            layer(x, **{name: random(*SHAPE)})


def test_a_mask_was_the_second_argument_once():
    layer, x = attention.KroneckerAttention("kv"), random(*SHAPE)
    mask = np.ones(SHAPE[:-1], bool)
    mask[:, 3:] = False
    with pytest.warns(DeprecationWarning, match="mask="):
        found = layer(x, mask)
    expected = layer(x, mask=mask)
    np.testing.assert_array_equal(to_numpy(found), to_numpy(expected))
    assert np.all(to_numpy(found)[:, 3:] == 0)


def test_the_query_was_called_inputs_once():
    layer, x = attention.KroneckerAttention("kv"), random(*SHAPE)
    mask = np.ones(SHAPE[:-1], bool)
    mask[:, 3:] = False
    with pytest.warns(DeprecationWarning, match=r"layer\(query=x\)") as seen:
        found = layer(inputs=x, mask=mask)
        picture = keras.Input(SHAPE[1:])
        model = keras.Model(picture, layer(inputs=picture))
    assert [warning.filename for warning in seen] == [__file__] * 2
    expected = to_numpy(layer(query=x, mask=mask))
    np.testing.assert_array_equal(to_numpy(found), expected)
    expected = to_numpy(layer(x))
    np.testing.assert_array_equal(to_numpy(model(x)), expected)
    # A graph that was saved while the argument had that name.
    config = json.loads(json.dumps(model.get_config()))
    [node] = config["layers"][-1]["inbound_nodes"]
    [tensor] = node["args"]
    node.update(args=[], kwargs={"inputs": tensor})
    with pytest.warns(DeprecationWarning, match="query"):
        saved = keras.Model.from_config(config)
    saved.set_weights(model.get_weights())
    np.testing.assert_array_equal(to_numpy(saved(x)), expected)


def test_arguments_that_are_documented_are_taken(layer):
    text = inspect.getdoc(type(layer)).partition("Call arguments:")[2]
    text = text.partition("\nReturns")[0]
    names = re.findall(r"^    (\w+(?:, \w+)*): ", text, re.M)
    documented = {n for part in names for n in part.split(", ")}
    assert documented <= set(inspect.signature(layer.call).parameters)


def test_scores_have_the_dtype_that_is_told():
    dtypes = set()
    wide = () if BACKEND == "jax" else ("float64",)  # JAX has none
    for dtype in ("float16", "float32", *wide):
        layer = attention.make("kao_kv", dtype=dtype)
        x = keras.ops.cast(random(*SHAPE), dtype)
        _, told = layer(
            keras.KerasTensor(SHAPE, dtype), return_attention_scores=True
        )
        _, found = layer(x, return_attention_scores=True)
        assert keras.backend.standardize_dtype(found.dtype) == told.dtype
        dtypes.add(told.dtype)
    assert "float32" in dtypes


@pytest.mark.parametrize("name", ["ylg", "squeeze_excitation"])
def test_a_layer_that_was_not_built_shows_where_it_looks(name):
    layer = attention.make(name)
    if name == "ylg":
        assert len(layer.attention_maps(random(*SHAPE), (0, 0))) == SHAPE[0]
    else:
        assert layer.gates(random(*SHAPE))[0].shape[0] == SHAPE[0]


def test_patterns_take_no_mask():
    mask = np.ones(SHAPE[:-1], bool)
    for make in SPARSE.values():
        with pytest.raises(ValueError, match=r"no mask.*\(2, 5, 6\)"):
            make()(random(*SHAPE), mask=mask)


@pytest.mark.parametrize("position", [(0, 0), (4, 5), (2, 3)])
def test_maps_say_where_a_cell_looks(layer, position):
    maps = layer.attention_maps(random(*SHAPE), position)
    assert maps.shape == (2, layer.num_heads, *SHAPE[1:3])
    assert maps.min() >= 0
    np.testing.assert_allclose(maps.sum((2, 3)), 1, atol=1e-5)
    assert (np.ptp(maps) > 1e-3) != layer.looks_evenly


@pytest.mark.parametrize("pool_size", [1, 2])
def test_maps_of_patterns_are_their_scores(pool_size):
    """Cell by cell, over the window that a key was pooled from."""
    x = random(*SHAPE)
    layer = attention.LocalSparseAttention2D(8, pool_size=pool_size)
    _, scores = layer(x, return_attention_scores=True)
    scores = to_numpy(scores)[:, :, 2 * 6 + 5]
    maps = layer.attention_maps(x, (2, 5))
    keys = scores.reshape(2, 8, -(-5 // pool_size), 6 // pool_size)
    for i, j in np.ndindex(keys.shape[2:]):
        rows = slice(i * pool_size, (i + 1) * pool_size)
        columns = slice(j * pool_size, (j + 1) * pool_size)
        np.testing.assert_allclose(
            maps[:, :, rows, columns].sum((2, 3)), keys[:, :, i, j], atol=1e-6
        )


def test_what_cannot_be_drawn(layer):
    with pytest.raises(ValueError, match=r"width, channels.*\(2, 6, 16\)"):
        layer.attention_maps(random(2, 6, 16), (0, 0))
    with pytest.raises(ValueError, match=r"within \(5, 6\).*position=\(5, 0\)"):
        layer.attention_maps(random(*SHAPE), (5, 0))
