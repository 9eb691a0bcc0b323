"""The four modules of a KANet against themselves written in NumPy."""

import json

import keras
import numpy as np
import pytest

from kanets.layers import (
    AttnModule,
    AttnSkipModule,
    BaseModule,
    BaseSkipModule,
    DenseAttention,
    KroneckerAttention,
)
from kanets.layers.inverted_residual import ATTENTIONS, make_attention
from tests.attention.test_grid_layers import average_pool, formula, maps_of
from tests.backends import needs_tensorflow, thorough_on_jax, to_numpy
from tests.layer_checks import check_layer, fill_weights, random

MODULES = [BaseModule, BaseSkipModule, AttnModule, AttnSkipModule]
ATTENDING = MODULES[2:]
KINDS = {
    "kao_qkv": "qkv",
    "kao_kv": "kv",
    "dense": "dense",
    "dense_pool": "pooled",
}


def filled(module, x):
    module(x)
    fill_weights(module.weights, module.name)
    return module


def weights_of(module):
    """Float64 arrays by path, the module's own name left out."""
    return {
        v.path.removeprefix(module.name + "/"): to_numpy(v).astype("float64")
        for v in module.weights
    }


def norm(x, weights, name):
    gamma, beta, mean, variance = (
        weights[f"{name}/{part}"]
        for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta


def relu6(x):
    return np.clip(x, 0, 6)


def depthwise(x, kernel, strides=1, rate=1):
    """A 3x3 depthwise convolution cell by cell, as TensorFlow pads "same"."""
    batch, height, width, channels = x.shape
    rows, columns = -(-height // strides), -(-width // strides)
    reach = 2 * rate + 1
    top = max((rows - 1) * strides + reach - height, 0) // 2
    left = max((columns - 1) * strides + reach - width, 0) // 2
    padded = np.pad(x, ((0, 0), (top, reach), (left, reach), (0, 0)))
    output = np.zeros((batch, rows, columns, channels))
    for i, j in np.ndindex(rows, columns):
        window = padded[:, strides * i :, strides * j :]
        window = window[:, :reach:rate, :reach:rate]
        output[:, i, j] = (window * kernel[..., 0]).sum((1, 2))
    return output


def reference(
    module, x, attention=None, scale="rsqrt", literal=False, maps=None
):
    """The module in inference, written down from its description."""
    kind, weights = type(module), weights_of(module)
    x = x.astype("float64")
    convolved = x
    if module.expansion > 1:
        convolved = x @ weights["expand/kernel"][0, 0]
        convolved = relu6(norm(convolved, weights, "expand_bn"))
    if kind is BaseSkipModule:
        convolved = np.concatenate([convolved, x], -1)
    convolved = depthwise(
        convolved,
        weights["depthwise/kernel"],
        module.strides,
        module.dilation_rate,
    )
    convolved = relu6(norm(convolved, weights, "depthwise_bn"))
    if attention is not None:
        if maps is None:
            maps = formula(
                KINDS[attention], x, maps_of(module.attention), scale=scale
            )
        if not literal:
            maps = relu6(norm(maps, weights, "attention_bn"))
        if kind is AttnSkipModule and module.strides == 1:
            maps = maps + x
        if module.strides == 2:
            maps = average_pool(maps)
        convolved = np.concatenate([convolved, maps], -1)
    output = convolved @ weights["project/kernel"][0, 0]
    output = norm(output, weights, "project_bn")
    if module.strides == 1 and x.shape[-1] == module.filters:
        output = output + x
    return output


@thorough_on_jax
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (BaseModule, {"strides": 2}),
        (AttnSkipModule, {"attention": "kao_kv"}),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (BaseModule, {"expansion": 1}),
                (BaseSkipModule, {}),
                (AttnModule, {"strides": 2}),
                (AttnSkipModule, {"attention": None}),
                (AttnSkipModule, {"dilation_rate": 2}),
            )
        ),
    ],
    ids=str,
)
def test_checks_of_every_layer(kind, arguments):
    arguments = {"expansion": 3, **arguments}
    check_layer(
        lambda **more: kind(4, **arguments, **more),
        (3, 5, 7, 4),
        fresh_process=kind is AttnModule,
    )


@pytest.mark.parametrize("grid", [(6, 4), (5, 1)], ids=str)
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("kind", MODULES)
def test_equals_the_description_in_numpy(kind, strides, grid):
    x = random(2, *grid, 4)
    attention = "kao_qkv" if kind in ATTENDING else None
    for filters in (4, 6):  # the residual is added for 4 alone
        module = filled(kind(filters, expansion=3, strides=strides), x)
        np.testing.assert_allclose(
            to_numpy(module(x)), reference(module, x, attention), atol=2e-5
        )


@pytest.mark.parametrize("dilation_rate", [2, 5])
@pytest.mark.parametrize("kind", MODULES)
def test_dilation_is_of_the_depthwise_convolution(kind, dilation_rate):
    x = random(2, 7, 5, 4)
    attention = "kao_qkv" if kind in ATTENDING else None
    module = kind(4, expansion=3, dilation_rate=dilation_rate)
    plain = filled(kind(4, expansion=3), x)
    expected = reference(filled(module, x), x, attention)
    np.testing.assert_allclose(to_numpy(module(x)), expected, atol=2e-5)
    assert np.abs(to_numpy(plain(x)) - expected).max() > 0.1
    assert set(weights_of(module)) == set(weights_of(plain))


@pytest.mark.parametrize("kind", MODULES)
def test_a_config_from_before_dilation(kind):
    config = kind(4, expansion=3, strides=2).get_config()
    assert config.pop("dilation_rate") == 1
    assert kind.from_config(config).dilation_rate == 1


def test_without_expansion():
    x = random(2, 5, 3, 4)
    module = filled(BaseModule(4, expansion=1), x)
    assert not any("expand" in path for path in weights_of(module))
    np.testing.assert_allclose(
        to_numpy(module(x)), reference(module, x), atol=1e-5
    )


@pytest.mark.parametrize(
    "attention",
    [
        pytest.param(
            name,
            marks=() if name in (*KINDS, "ylg") else pytest.mark.slow,
        )
        for name in ATTENTIONS
    ],
)
@pytest.mark.parametrize(
    ("kind", "strides"), [(AttnModule, 2), (AttnSkipModule, 1)]
)
def test_named_attentions(kind, strides, attention):
    x = random(2, 5, 7, 4)
    module = kind(4, expansion=3, strides=strides, attention=attention)
    filled(module, x)
    maps = None
    if attention not in KINDS:  # tested in tests/attention
        maps = to_numpy(module.attention(x)).astype("float64")
        assert np.abs(maps - x).max() > 0.1  # neither input nor gate in it
    expected = reference(module, x, attention, maps=maps)
    np.testing.assert_allclose(to_numpy(module(x)), expected, atol=2e-5)


@pytest.mark.parametrize("kind", ATTENDING)
def test_the_literal_form_of_the_paper(kind):
    x = random(2, 5, 3, 4)
    module = kind(
        4,
        expansion=3,
        attention_scale=None,
        attention_norm=False,
        attention_activation=None,
    )
    filled(module, x)
    assert not any("attention_bn" in path for path in weights_of(module))
    expected = reference(module, x, "kao_qkv", None, True)
    np.testing.assert_allclose(to_numpy(module(x)), expected, atol=2e-5)


@pytest.mark.parametrize("kind", ATTENDING)
def test_without_attention_the_path_is_left_out(kind):
    x = random(2, 5, 3, 4)
    module = filled(kind(4, expansion=3, attention=None), x)
    weights = weights_of(module)
    assert not any("attention" in path for path in weights)
    assert weights["project/kernel"].shape == (1, 1, 8, 4)
    np.testing.assert_allclose(
        to_numpy(module(x)), reference(module, x), atol=2e-5
    )


def two_heads():
    return KroneckerAttention(mode="qkv", num_heads=2, scale=0.5)


def with_norm():
    return keras.Sequential(
        [
            keras.layers.BatchNormalization(name="before"),
            KroneckerAttention(mode="kv", scale="rsqrt"),
        ]
    )


@pytest.mark.parametrize("make", [two_heads, with_norm])
@pytest.mark.parametrize("given", ["a callable", "a layer"])
def test_attention_of_ones_own(given, make):
    x = random(2, 5, 3, 4)
    attention = make if given == "a callable" else make()
    module = filled(AttnSkipModule(4, expansion=3, attention=attention), x)
    assert type(module.attention) is type(make())
    expected = to_numpy(module(x))

    config = json.loads(json.dumps(keras.saving.serialize_keras_object(module)))
    copy = keras.saving.deserialize_keras_object(config)
    assert json.dumps(copy.get_config()) == json.dumps(module.get_config())
    copy(x)
    copy.set_weights(module.get_weights())
    np.testing.assert_array_equal(to_numpy(copy(x)), expected)


def test_attention_of_ones_own_is_saved(tmp_path):
    x = random(2, 5, 3, 4)
    inputs = keras.Input((None, None, 4))
    module = AttnModule(6, expansion=3, strides=2, attention=with_norm)
    model = keras.Model(inputs, module(inputs))
    fill_weights(model.weights)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        to_numpy(loaded(x)), to_numpy(model(x)), atol=1e-6
    )


def test_attention_of_ones_own_sees_training():
    x = 3 + random(2, 5, 3, 4)
    module = AttnModule(4, expansion=3, attention=with_norm)
    module(x, training=True)
    mean = module.attention.get_layer("before").moving_mean
    assert np.abs(to_numpy(mean)).min() > 0


def test_make_attention_takes_arguments_of_a_named_layer():
    layer = make_attention("dense_pool", num_heads=2, name="mine")
    assert isinstance(layer, DenseAttention) and layer.pool_size == 2
    assert layer.num_heads == 2 and layer.name == "mine"
    assert make_attention("kao_kv").mode == "kv"
    assert make_attention(layer) is layer
    assert isinstance(make_attention(keras.layers.Identity), keras.layers.Layer)


@pytest.mark.parametrize("kind", MODULES)
def test_sublayers_follow_the_dtype_policy(kind):
    module = kind(4, expansion=3, dtype="mixed_bfloat16")
    module(random(1, 3, 3, 4))
    names = {layer.dtype_policy.name for layer in module._flatten_layers()}
    assert names == {"mixed_bfloat16"}


def test_names_of_weights():
    module = AttnSkipModule(6, expansion=3, name="block")
    module(random(1, 3, 3, 4))
    parts = ("gamma", "beta", "moving_mean", "moving_variance")
    expected = {"block/attention/value/kernel"}
    for layer in ("expand", "depthwise", "project"):
        expected.add(f"block/{layer}/kernel")
    for layer in ("expand", "depthwise", "attention", "project"):
        expected |= {f"block/{layer}_bn/{part}" for part in parts}
    assert {v.path for v in module.weights} == expected


@pytest.mark.parametrize("kind", [BaseModule, AttnModule])
def test_a_frozen_module_runs_in_inference(kind):
    x = 3 + random(3, 5, 3, 4)
    module = filled(kind(4, expansion=3), x)
    expected = to_numpy(module(x, training=False))
    before = module.get_weights()
    assert np.abs(to_numpy(module(x, training=True)) - expected).max() > 0.1
    module.set_weights(before)

    module.trainable = False
    assert not module.trainable_variables
    np.testing.assert_array_equal(to_numpy(module(x, training=True)), expected)
    for old, new in zip(before, module.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    copy = kind.from_config(module.get_config())
    copy.build(x.shape)
    copy.set_weights(before)
    np.testing.assert_array_equal(to_numpy(copy(x, training=True)), expected)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: BaseModule(0),
            "filters must be a positive integer. Received: filters=0",
        ),
        (lambda: AttnModule(8.0), "Received: filters=8.0"),
        (
            lambda: BaseModule(8, expansion=0),
            "expansion must be a positive integer. Received: expansion=0",
        ),
        (
            lambda: BaseModule(8, strides=3),
            "strides must be 1 or 2. Received: strides=3",
        ),
        (
            lambda: BaseModule(8, dilation_rate=0),
            "dilation_rate must be a positive integer. "
            "Received: dilation_rate=0",
        ),
        (
            lambda: AttnModule(8, strides=2, dilation_rate=2),
            "not both. Received: strides=2, dilation_rate=2",
        ),
        (
            lambda: BaseSkipModule(8, expansion=1),
            "expansion must be 2 or more.* Received: expansion=1",
        ),
        (lambda: AttnModule(8, expansion=1), "Received: expansion=1"),
        (
            lambda: AttnModule(8, attention="kao"),
            "must be one of .*'dense_pool'.* Received: attention='kao'",
        ),
        (
            lambda: AttnSkipModule(8, attention=3),
            "a callable that makes a Keras layer. Received: attention=3",
        ),
        (
            lambda: AttnModule(8, attention=lambda: None),
            "makes a Keras layer. Received: attention=<function",
        ),
        (
            lambda: BaseModule(8)(random(1, 5, 4)),
            r"known channels. Received: input_shape=\(1, 5, 4\)",
        ),
        (
            lambda: AttnModule(8)(random(1, 5, 4)),
            r"known channels. Received: input_shape=\(1, 5, 4\)",
        ),
        (
            lambda: AttnModule(8, attention_activation="relu66"),
            "Could not interpret .*relu66",
        ),
        (
            lambda: AttnModule(8, attention_scale="sqrt"),
            "Received: scale='sqrt'",
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
    ("attention", "shape", "text"),
    [
        ("kao_qkv", (5, 3, 6), "axis -1 .* to have value 4"),
        (None, (3, 4), "expected ndim=4, found ndim=3"),
        pytest.param(
            lambda: KroneckerAttention(implementation="pallas"),
            (5, 3, 4),
            "needs the JAX backend of Keras. Received: backend='tensorflow'",
            marks=needs_tensorflow,
        ),
    ],
)
def test_a_symbolic_call_finds_what_a_call_would(attention, shape, text):
    for inputs in (random(2, *shape), keras.Input(shape)):
        module = AttnModule(4, expansion=3, attention=attention)
        module.build((None, 5, 3, 4))
        with pytest.raises(ValueError, match=text):
            module(inputs)
