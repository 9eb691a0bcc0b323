"""Attention layers: projections, masks and scores, against the formula."""

from pathlib import Path

import keras
import numpy as np
import pytest

from kanets.layers import DenseAttention, KroneckerAttention
from tests.attention.test_operators import attend_by_loop, means_by_loop
from tests.backends import (
    BACKEND,
    dot,
    gradient,
    needs_tensorflow,
    thorough_on_jax,
    to_numpy,
)
from tests.layer_checks import check_layer, fill_weights, random

GOLDEN = Path(__file__).parent.parent / "golden"
NAMES = {"q": "query", "k": "key", "v": "value", "o": "output"}
LAYERS = {
    "kv": lambda **a: KroneckerAttention(mode="kv", **a),
    "qkv": lambda **a: KroneckerAttention(mode="qkv", **a),
    "dense": lambda **a: DenseAttention(**a),
    "pooled": lambda **a: DenseAttention(pool_size=2, **a),
}
BLIND = {
    "key/bias": "it adds the same to all logits of a query",
}


def formula(kind, x, maps=None, num_heads=1, scale=None):
    """The layer in float64: every map works on the full grid, then means.

    `maps` has (kernel, bias) for some of query, key, value, output. In "qkv"
    the output bias enters once per grid axis, as the layer says.
    """
    x = x.astype("float64")
    maps = {} if maps is None else maps
    batch, *grid, _ = x.shape
    query, key, value = (
        linear(x, maps.get(name)) for name in ("query", "key", "value")
    )
    channels = query.shape[-1]
    if scale is None:
        scale = 1.0
    elif scale == "rsqrt":
        scale = (channels / num_heads) ** -0.5
    summary = {
        "kv": means_by_loop,
        "qkv": means_by_loop,
        "dense": lambda t: t.reshape(batch, -1, channels),
        "pooled": lambda t: average_pool(t).reshape(batch, -1, channels),
    }[kind]
    query = (
        summary(query) if kind == "qkv" else query.reshape(batch, -1, channels)
    )
    found = attend_by_loop(
        query, summary(key), summary(value), num_heads, scale
    )
    if kind != "qkv":
        return linear(found.reshape(batch, *grid, channels), maps.get("output"))
    result = np.zeros((batch, *grid, channels))
    for cell in np.ndindex(*grid):
        start = 0
        for size, index in zip(grid, cell, strict=True):
            result[(slice(None), *cell)] += found[:, start + index]
            start += size
    return linear(result, maps.get("output"), len(grid))


def linear(x, weights, bias_times=1):
    if weights is None:
        return x
    kernel, bias = weights
    return x @ kernel + bias_times * bias


def average_pool(x):
    """Means over 2x2 windows; those at an odd edge are smaller."""
    height, width = (-(-n // 2) for n in x.shape[1:3])
    result = np.zeros((len(x), height, width, x.shape[-1]))
    for i, j in np.ndindex(height, width):
        window = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        result[:, i, j] = window.mean((1, 2))
    return result


def maps_of(layer):
    """(kernel, bias) in float64 by name, from the layer's weights."""
    maps = {}
    for variable in layer.weights:
        _, name, kind = variable.path.rsplit("/", 2)
        maps.setdefault(name, [None, 0.0])[kind == "bias"] = to_numpy(
            variable
        ).astype("float64")
    return maps


def filled(layer, x):
    layer(x)
    fill_weights(layer.weights, layer.name)
    return layer


@thorough_on_jax
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("kv", {"num_heads": 2}),
        ("qkv", {"projections": "", "scale": 0.5}),
        ("qkv", {"projections": "qkvo", "use_bias": True, "num_heads": 3}),
        ("dense", {"projections": "qko", "scale": "rsqrt"}),
        ("pooled", {"kernel_regularizer": "l2"}),
        ("kv", {"projections": "qkvo", "num_heads": 2, "key_dim": 5}),
    ],
    ids=str,
)
def test_checks_of_every_layer(kind, arguments):
    check_layer(
        lambda **more: LAYERS[kind](**arguments, **more),
        (2, 5, 7, 6),
        no_gradient=BLIND if arguments.get("use_bias") else None,
    )


@pytest.mark.parametrize(("shape", "grid"), [((13,), (1,)), ((2, 3, 5), None)])
def test_checks_on_sequences_and_video(shape, grid):
    check_layer(
        lambda **more: KroneckerAttention("kv", num_heads=2, **more),
        (2, *shape, 4),
        grids=((1,) * len(shape),) if grid is None else (grid, (7,)),
    )


@pytest.mark.parametrize("projections", ["", "v", "qk", "qkvo"])
@pytest.mark.parametrize("kind", LAYERS)
def test_maps_commute_with_averages(kind, projections):
    x = random(2, 5, 7, 6)
    layer = LAYERS[kind](
        projections=projections, use_bias=True, num_heads=3, scale="rsqrt"
    )
    filled(layer, x)
    maps = maps_of(layer)
    assert set(maps) == {NAMES[letter] for letter in projections}
    expected = formula(kind, x, maps, 3, "rsqrt")
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_heads_of_their_own_size(kind):
    x = random(2, 3, 5, 7)  # three heads of 4 are neither a part of 7 nor 7
    layer = LAYERS[kind](
        projections="qkvo",
        key_dim=4,
        num_heads=3,
        scale="rsqrt",
        use_bias=True,
    )
    filled(layer, x)
    maps = maps_of(layer)
    assert maps["query"][0].shape == (7, 12) == maps["output"][0].shape[::-1]
    expected = formula(kind, x, maps, 3, "rsqrt")
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-5)
    shape = layer(keras.Input(x.shape[1:])).shape
    assert shape == (None, *x.shape[1:])


@pytest.mark.parametrize("scale", [None, "rsqrt", 0.3, 2])
@pytest.mark.parametrize("kind", LAYERS)
def test_scale(kind, scale):
    x = random(2, 3, 5, 8)
    layer = filled(LAYERS[kind](num_heads=2, scale=scale), x)
    expected = formula(kind, x, maps_of(layer), 2, scale)
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-5)


@pytest.mark.parametrize("grid", [(11,), (1,), (3, 5, 2)], ids=str)
@pytest.mark.parametrize("kind", ["kv", "qkv", "dense"])
def test_sequences_and_video(kind, grid):
    x = random(2, *grid, 6)
    layer = LAYERS[kind](projections="qkvo", use_bias=True, num_heads=2)
    filled(layer, x)
    expected = formula(kind, x, maps_of(layer), 2)
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-5)


def lucidrains_layer(golden):
    """The PyTorch port as our layer, and its picture with channels last.

    It has 16 channels outside and 32 inside; our maps are square, so that
    the outer ones are padded with zeros.
    """
    maps = golden["case0_param:to_qkv.weight"][:, :, 0].T
    out = golden["case0_param:to_out.weight"][:, :, 0].T
    bias = golden["case0_param:to_out.bias"]
    outer, inner = len(maps), len(out)
    layer = KroneckerAttention(
        mode="qkv",
        num_heads=int(golden["case0_heads"]),
        projections="qkvo",
        use_bias=True,
    )
    layer.build((None, None, None, inner))
    padding = ((0, inner - outer), (0, 0))
    kernels = [np.pad(m, padding) for m in np.split(maps, 3, axis=1)]
    values = {
        **dict(zip(("query", "key", "value"), kernels, strict=True)),
        "output": np.pad(out, padding[::-1]),
    }
    for variable in layer.weights:
        _, name, kind = variable.path.rsplit("/", 2)
        if kind == "kernel":
            variable.assign(values[name])
        elif name == "output":
            variable.assign(np.pad(bias, padding[0]))
        else:
            variable.assign(np.zeros(inner))
    x = golden["case0_input"].transpose(0, 2, 3, 1)
    return layer, np.pad(x, ((0, 0), (0, 0), (0, 0), padding[0])), outer


def test_equals_the_independent_pytorch_port():
    golden = np.load(GOLDEN / "kronecker_lucidrains.npz")
    layer, x, channels = lucidrains_layer(golden)
    expected = golden["case0_output"].transpose(0, 2, 3, 1)
    output = to_numpy(layer(x))
    np.testing.assert_allclose(output[..., :channels], expected, atol=1e-5)
    assert np.all(output[..., channels:] == 0)

    cotangent = golden["case0_cotangent"].transpose(0, 2, 3, 1)
    (actual,) = gradient(lambda t: dot(layer(t)[..., :channels], cotangent), x)
    expected = golden["case0_input_grad"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(actual[..., :channels], expected, atol=2e-5)


@pytest.mark.parametrize(
    ("kind", "scores"),
    [
        ("kv", (2, 3, 35, 12)),
        ("qkv", (2, 3, 12, 12)),
        ("dense", (2, 3, 35, 35)),
        ("pooled", (2, 3, 35, 12)),
    ],
)
def test_attention_scores(kind, scores):
    x = random(2, 5, 7, 6)
    layer = LAYERS[kind](num_heads=3, dtype="mixed_bfloat16")
    output, weights = layer(x, return_attention_scores=True)
    assert output.shape == x.shape and weights.shape == scores
    np.testing.assert_allclose(to_numpy(weights).sum(-1), 1, atol=1e-5)

    inputs = keras.Input(x.shape[1:])
    outputs = layer(inputs, return_attention_scores=True)
    assert [t.shape for t in outputs] == [(None, 5, 7, 6), (None, *scores[1:])]
    assert [t.dtype for t in outputs] == ["bfloat16", "float32"]
    model = keras.Model(inputs, outputs)
    np.testing.assert_array_equal(to_numpy(model(x)[1]), to_numpy(weights))

    inputs = keras.Input((None, None, 6))
    open_sizes = layer(inputs, return_attention_scores=True)
    assert open_sizes[1].shape == (None, 3, None, None)


@pytest.mark.parametrize("kind", ["kv", "qkv", "dense"])
def test_padding_changes_nothing(kind):
    x = random(2, 3, 5, 4)
    padded = 9 * random(2, 4, 7, 4, seed=1)
    padded[:, :3, :5] = x
    mask = np.zeros(padded.shape[:-1], bool)
    mask[:, :3, :5] = True
    layer = LAYERS[kind](projections="qkvo", use_bias=True, num_heads=2)
    filled(layer, x)
    actual = to_numpy(layer(padded, mask=mask))
    expected = to_numpy(layer(x))
    np.testing.assert_allclose(actual[:, :3, :5], expected, atol=1e-5)
    assert np.all(actual[~mask] == 0)
    assert np.abs(to_numpy(layer(padded)) - actual).max() > 0.1


@pytest.mark.parametrize("kind", ["kv", "qkv", "dense"])
def test_a_keras_mask_arrives_and_goes_on(kind):
    x = random(2, 5, 4)
    layer = filled(LAYERS[kind](), x)
    pool = keras.layers.GlobalAveragePooling1D()
    inputs = keras.Input((None, 4))
    masked = keras.layers.Masking()(inputs)
    model = keras.Model(inputs, pool(layer(masked)))
    padded = np.concatenate([x, np.zeros((2, 3, 4), "float32")], axis=1)
    expected = to_numpy(layer(x)).mean(1)
    np.testing.assert_allclose(to_numpy(model(padded)), expected, atol=1e-5)

    mask = np.ones((2, 5), bool)
    assert layer.compute_mask(x, mask) is mask


def test_maps_start_different():
    layer = KroneckerAttention(projections="qk")
    layer.build((None, 3, 5, 4))
    query, key = (to_numpy(w) for w in layer.weights)
    assert np.abs(query - key).max() > 0.1


def test_initializer_and_regularizer_are_used():
    layer = KroneckerAttention(
        projections="qv",
        kernel_initializer=keras.initializers.Constant(0.5),
        kernel_regularizer=keras.regularizers.L1(1.0),
    )
    layer(random(1, 3, 5, 4))
    assert len(layer.losses) == 2
    assert sum(float(to_numpy(loss)) for loss in layer.losses) == 16.0


def test_initializer_may_be_a_function():
    def eye(shape, dtype=None):
        return keras.ops.eye(*shape, dtype=dtype)

    x = random(1, 3, 5, 4)
    layer = KroneckerAttention("kv", kernel_initializer=eye)
    np.testing.assert_allclose(to_numpy(layer(x)), formula("kv", x), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: KroneckerAttention(mode="vk"),
            'mode must be "kv" or "qkv". Received: mode=\'vk\'',
        ),
        (
            lambda: KroneckerAttention(num_heads=0),
            "num_heads must be a positive integer. Received: num_heads=0",
        ),
        (
            lambda: KroneckerAttention(num_heads=2.0),
            "Received: num_heads=2.0",
        ),
        (
            lambda: KroneckerAttention(projections="qx"),
            "each once at most. Received: projections='qx'",
        ),
        (
            lambda: DenseAttention(projections="vv"),
            "Received: projections='vv'",
        ),
        (
            lambda: KroneckerAttention(projections="qkvo", key_dim=0),
            "key_dim must be a positive integer. Received: key_dim=0",
        ),
        (
            lambda: DenseAttention(key_dim=4),
            "Received: key_dim=4 with projections='v'",
        ),
        (
            lambda: KroneckerAttention(projections=None),
            "Received: projections=None",
        ),
        (
            lambda: KroneckerAttention(scale="sqrt"),
            "scale must be None, \"rsqrt\" or a number. Received: scale='sqrt'",
        ),
        (lambda: KroneckerAttention(scale=True), "Received: scale=True"),
        (
            lambda: DenseAttention(pool_size=0),
            "pool_size must be a positive integer. Received: pool_size=0",
        ),
        (
            lambda: KroneckerAttention(num_heads=3)(random(1, 2, 2, 4)),
            "divide the channels. Received: num_heads=3, channels=4",
        ),
        (
            lambda: KroneckerAttention()(random(2, 4)),
            r"known channels. Received: input_shape=\(2, 4\)",
        ),
        (
            lambda: KroneckerAttention()(keras.Input((3, 5, None))),
            r"Received: input_shape=\(None, 3, 5, None\)",
        ),
        (
            lambda: DenseAttention(pool_size=2)(keras.Input((5, 4))),
            r"picture .* Received: input_shape=\(None, 5, 4\), pool_size=2",
        ),
        (
            lambda: DenseAttention(pool_size=2)(
                random(1, 4, 4, 2), mask=np.ones((1, 4, 4), bool)
            ),
            "no mask. Received: .*mask=given, pool_size=2",
        ),
        (
            lambda: KroneckerAttention()(
                random(2, 3, 5, 4), mask=np.ones((2, 3), bool)
            ),
            r"Received: mask.shape=\(2, 3\), x.shape=\(2, 3, 5, 4\)",
        ),
    ],
)
def test_bad_input_is_named(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.filterwarnings(
    "ignore:A layer's argument implementation:DeprecationWarning"
)
@pytest.mark.parametrize(
    ("make", "shape", "mask", "text"),
    [
        (
            KroneckerAttention,
            (3, 5, 4),
            (3,),
            r"mask.shape=\(.*, 3\), x.shape=",
        ),
        (KroneckerAttention, (3, 5, 4), (5, 3), r"mask.shape=\(.*, 5, 3\), "),
        (DenseAttention, (3, 5, 4), (3,), r"mask.shape=\(.*, 3\), x.shape="),
        (LAYERS["pooled"], (3, 5, 4), (3, 5), "mask=given, pool_size=2"),
        (LAYERS["pooled"], (5, 4), None, "mask=None, pool_size=2"),
        (KroneckerAttention, (4,), None, "min_ndim=3, found ndim=2"),
        (KroneckerAttention, (3, 5, 6), None, "axis -1 .* to have value 4"),
        (
            lambda: DenseAttention(projections="", num_heads=4),
            (3, 5, 6),
            None,
            "Received: num_heads=4, channels=6",
        ),
        pytest.param(
            lambda: KroneckerAttention(implementation="pallas"),
            (3, 5, 4),
            None,
            "needs the JAX backend of Keras. Received: backend='tensorflow'",
            marks=needs_tensorflow,
        ),
        pytest.param(
            lambda: KroneckerAttention(implementation="pallas"),
            (5, 4),
            None,
            r"needs a picture .*x.shape=\(.*, 5, 4\)",
            marks=pytest.mark.skipif(BACKEND != "jax", reason="about Pallas"),
        ),
    ],
)
def test_a_symbolic_call_finds_what_a_call_would(make, shape, mask, text):
    x, symbolic = random(2, *shape), keras.Input(shape)
    masks = {}, {}
    if mask is not None:
        masks = (
            {"mask": np.ones((2, *mask), bool)},
            {"mask": keras.Input(mask, dtype="bool")},
        )
    for inputs, arguments in zip((x, symbolic), masks, strict=True):
        layer = make()
        layer.build((None, 3, 5, 4))  # for some the first call is another
        with pytest.raises(ValueError, match=text):
            layer(inputs, **arguments)
