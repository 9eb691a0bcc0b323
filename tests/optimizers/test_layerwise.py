"""Layer-wise rates: each weight moves as under its own plain optimizer."""

import json

import keras
import numpy as np
import pytest

from kanets import KANet
from kanets.train.optimizers import (
    LayerwiseAdamW,
    LayerwiseSGD,
    layer_decay_factors,
)
from tests.backends import (
    needs_tensorflow,
    needs_xla,
    thorough_on_jax,
    to_numpy,
)

RATE = 0.1
FACTORS = {"frozen": 0.0, "slow": 0.25, "fast": 2.0}  # "plain" is absent
NAMES = ("frozen", "slow", "plain", "fast")
OPTIMIZERS = {
    "sgd": (LayerwiseSGD, keras.optimizers.SGD, {"weight_decay": 0.3}),
    "momentum": (
        LayerwiseSGD,
        keras.optimizers.SGD,
        {"momentum": 0.9, "nesterov": True},
    ),
    "adamw": (LayerwiseAdamW, keras.optimizers.AdamW, {"weight_decay": 0.3}),
    "adamw, no decay": (
        LayerwiseAdamW,
        keras.optimizers.AdamW,
        {"weight_decay": 0.0, "amsgrad": True},
    ),
}


def draw(index):
    return np.random.default_rng(index).normal(size=(3, 5)).astype("float32")


def descend(optimizer, names, steps=4):
    """Values of the variables after steps down gradients fixed by name."""
    variables = [keras.Variable(draw(NAMES.index(n)), name=n) for n in names]
    optimizer.build(variables)
    for step in range(steps):
        gradients = [draw(100 * step + 10 + NAMES.index(n)) for n in names]
        gradients = [keras.ops.convert_to_tensor(g) for g in gradients]
        optimizer.apply(gradients, variables)
    return {v.name: to_numpy(v) for v in variables}


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_equals_a_plain_optimizer_per_variable(case):
    ours, plain, arguments = OPTIMIZERS[case]
    actual = descend(ours(RATE, factors=FACTORS, **arguments), NAMES)
    for name in NAMES:
        rate = RATE * FACTORS.get(name, 1.0)
        expected = descend(plain(rate, **arguments), [name])[name]
        np.testing.assert_allclose(actual[name], expected, rtol=1e-6)
    np.testing.assert_array_equal(actual["frozen"], draw(0))
    assert np.abs(actual["slow"] - draw(1)).min() > 0


@pytest.mark.parametrize("kind", [LayerwiseSGD, LayerwiseAdamW])
def test_without_factors_it_is_the_plain_optimizer(kind):
    arguments = {"learning_rate": RATE, "weight_decay": 0.3}
    actual = descend(kind(**arguments), NAMES)
    expected = descend(kind.__mro__[2](**arguments), NAMES)
    assert kind.__mro__[2].__module__.startswith("keras")
    for name in NAMES:  # Keras's own for PyTorch round in another order
        np.testing.assert_allclose(
            actual[name], expected[name], rtol=1e-6, atol=2e-7
        )


def test_schedules_and_exclusions_are_kept():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.2, 2, 0.5)
    optimizer = LayerwiseAdamW(schedule, factors=FACTORS, weight_decay=0.3)
    optimizer.exclude_from_weight_decay(var_names=["slow"])
    actual = descend(optimizer, NAMES)
    plain = keras.optimizers.AdamW(
        keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5),
        weight_decay=0.3,
    )
    plain.exclude_from_weight_decay(var_names=["slow"])
    expected = descend(plain, ["slow", "frozen"])["slow"]
    np.testing.assert_allclose(actual["slow"], expected, rtol=1e-6)


def make_model(optimizer=None, **arguments):
    inputs = keras.Input((5,))
    x = keras.layers.Dense(7, "tanh", name="low")(inputs)
    x = keras.layers.Dense(3, "tanh", name="middle")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="high")(x))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    if optimizer is not None:
        model.compile(optimizer, "mse", **arguments)
    return model


def fit(model, steps=3):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4 * steps, 5)).astype("float32")
    y = rng.normal(size=(4 * steps, 2)).astype("float32")
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    return [np.array(w) for w in model.get_weights()]


def assert_same(weights, expected, atol=1e-6):
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol)


def optimizer_for_fit(kind=LayerwiseAdamW):
    factors = {"low/kernel": 0.0, "low/bias": 0.0, "middle/kernel": 0.1}
    return kind(0.05, factors=factors, weight_decay=0.1)


@needs_xla
@pytest.mark.parametrize("kind", [LayerwiseSGD, LayerwiseAdamW])
def test_fit_with_and_without_xla(kind):
    weights = {}
    for jit in (False, True):
        model = make_model(optimizer_for_fit(kind), jit_compile=jit)
        weights[jit] = fit(model)
    assert_same(weights[True], weights[False])
    start = make_model().get_weights()
    np.testing.assert_array_equal(weights[True][0], start[0])
    np.testing.assert_array_equal(weights[True][1], start[1])
    middle, high = (np.abs(weights[True][i] - start[i]).mean() for i in (2, 4))
    assert 0 < middle < 0.5 * high


@pytest.mark.parametrize("kind", [LayerwiseSGD, LayerwiseAdamW])
def test_config_round_trip(kind):
    optimizer = kind(0.05, factors=FACTORS, weight_decay=0.1, clipnorm=1.0)
    config = optimizer.get_config()
    assert config["factors"] == FACTORS
    copy = kind.from_config(json.loads(json.dumps(config)))
    assert copy.get_config() == config
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(copy) is kind and copy.get_config() == config
    assert kind().get_config()["factors"] == {}


def test_a_saved_model_goes_on_as_if_nothing_had_happened(tmp_path):
    model = make_model(optimizer_for_fit())
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is LayerwiseAdamW
    assert_same(fit(loaded), fit(model))
    np.testing.assert_array_equal(
        loaded.get_weights()[0], make_model().get_weights()[0]
    )


@needs_tensorflow
@pytest.mark.parametrize("kind", [LayerwiseSGD, LayerwiseAdamW])
def test_under_a_distribution_strategy(kind):
    import tensorflow as tf

    expected = fit(make_model(optimizer_for_fit(kind)))
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = make_model(optimizer_for_fit(kind))
    assert_same(fit(model), expected)


def test_layer_decay_factors():
    assert layer_decay_factors(make_model(), 0.5) == {
        "high/kernel": 1.0,
        "high/bias": 1.0,
        "middle/kernel": 0.5,
        "middle/bias": 0.5,
        "low/kernel": 0.25,
        "low/bias": 0.25,
    }
    model = make_model()
    model.get_layer("middle").trainable = False
    factors = layer_decay_factors(model, 0.5)
    assert factors["low/kernel"] == 0.5 and "middle/kernel" not in factors
    assert set(layer_decay_factors(model, 1).values()) == {1}


@thorough_on_jax
def test_layer_decay_factors_of_a_kanet(tmp_path):
    model = KANet((32, 32, 3), 0.25, classes=5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert layer_decay_factors(loaded, 0.9) == layer_decay_factors(model, 0.9)
    factors = layer_decay_factors(model, 0.9)
    assert set(factors) == {v.path for v in model.trainable_variables}
    assert factors["predictions/kernel"] == 1
    assert factors["head_bn/gamma"] == 0.9
    assert factors["stem_conv/kernel"] == min(factors.values())
    assert factors["stem_conv/kernel"] < factors["stem_bn/gamma"]
    first = factors["stage1_block1/depthwise/kernel"]
    last = factors["stage10_block1/depthwise/kernel"]
    assert first == factors["stage1_block1/project_bn/beta"] < last
    # Two of the stem, 17 modules, two of the head, the classifier.
    assert np.isclose(min(factors.values()), 0.9**21)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: LayerwiseSGD(factors={"a/kernel": -0.1}),
            r"must not be negative. Received: factors\['a/kernel'\]=-0.1",
        ),
        (
            lambda: LayerwiseAdamW(factors={"a": float("nan")}),
            r"Received: factors\['a'\]=nan",
        ),
        (
            lambda: descend(LayerwiseSGD(factors={"lower": 0.1}), ["slow"]),
            r"their path. Received: factors={'lower': 0.1}; .* \['slow'\]",
        ),
        (
            lambda: layer_decay_factors(make_model(), 0),
            r"decay must be in \(0, 1\]. Received: decay=0",
        ),
        (
            lambda: layer_decay_factors(make_model(), 1.5),
            "Received: decay=1.5",
        ),
    ],
)
def test_bad_input_is_named(make, text):
    with pytest.raises(ValueError, match=text):
        make()
