"""The logits of a net, as a model that trains it."""

import keras
import numpy as np
import pytest

from kanets.nets import KANetSegmenter, logits_model
from kanets.nets.logits import outputs_logits
from tests.backends import to_numpy
from tests.layer_checks import random

HEADS = {
    "dense": [keras.layers.Dense(3, activation="softmax", name="head")],
    "conv": [keras.layers.Conv2D(3, 1, activation="softmax", name="head")],
    "activation": [
        keras.layers.Conv2D(3, 1, name="head"),
        keras.layers.Activation("softmax"),
    ],
    "layer": [keras.layers.Conv2D(3, 1, name="head"), keras.layers.Softmax()],
    "operation": [keras.layers.Conv2D(3, 1, name="head"), keras.ops.softmax],
}


def make(head):
    inputs = keras.Input((2, 4, 5), name="maps")
    x = keras.layers.BatchNormalization(name="bn")(inputs)
    for layer in head:
        if isinstance(layer, keras.layers.Layer):
            layer = type(layer).from_config(layer.get_config())
        x = layer(x)
    return keras.Model(inputs, x, name="net")


@pytest.mark.parametrize("kind", HEADS)
def test_a_softmax_of_them_is_the_net(kind):
    model, x = make(HEADS[kind]), random(3, 2, 4, 5)
    logits = logits_model(model)
    assert logits.name == "net" and logits is not model
    assert logits.get_layer("bn") is model.get_layer("bn")
    shapes = [(v.path, v.shape) for v in model.weights]
    assert [(v.path, v.shape) for v in logits.weights] == shapes
    found = to_numpy(logits(x))
    assert found.min() < 0
    np.testing.assert_allclose(
        to_numpy(keras.ops.softmax(found)), to_numpy(model(x)), atol=1e-6
    )


@pytest.mark.parametrize("kind", HEADS)
def test_what_they_learn_is_the_nets(kind, tmp_path):
    model, x = make(HEADS[kind]), random(3, 2, 4, 5)
    weights = model.get_layer("head").get_weights()
    # So sure and so wrong that a loss of probabilities has no gradient.
    model.get_layer("head").set_weights([weights[0], np.array([90.0, 0, 0])])
    logits = logits_model(model)
    logits.compile(
        keras.optimizers.SGD(1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    logits.fit(x, np.ones((3, 2, 4)), verbose=0)
    model.set_weights(logits.get_weights())
    _, bias = model.get_layer("head").get_weights()
    np.testing.assert_allclose(bias, [89, 1, 0], atol=1e-4)
    np.testing.assert_allclose(
        to_numpy(keras.ops.softmax(logits(x))), to_numpy(model(x)), atol=1e-6
    )
    # A state that the net itself has saved is one of the logits.
    model.save_weights(tmp_path / "net.weights.h5")
    fresh = logits_model(make(HEADS[kind]))
    fresh.load_weights(tmp_path / "net.weights.h5")
    for one, other in zip(fresh.weights, logits.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))


def test_of_a_segmenter():
    model = KANetSegmenter((33, 41, 3), 0.25, classes=5)
    logits = logits_model(model)
    assert [v.path for v in logits.weights] == [v.path for v in model.weights]
    assert logits.layers[-1].activation is keras.activations.linear


def test_of_what_ends_in_no_softmax():
    model = make([keras.layers.Dense(3)])
    assert logits_model(model) is model
    for head in (
        keras.layers.Dense(3, activation="sigmoid"),
        keras.layers.Softmax(axis=1),
        keras.layers.GlobalAveragePooling2D(),
    ):
        assert logits_model(make([head])) is None
    # These are probabilities still.
    for last in (
        keras.layers.Activation("linear", dtype="float32"),
        keras.layers.Reshape((8, 3)),
    ):
        assert logits_model(make([*HEADS["dense"], last])) is None


def heads():
    inputs = keras.Input((5, 4, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    dense = keras.layers.Dense(3)(x)
    soft = keras.layers.Dense(3, activation="softmax")(x)
    as_float32 = keras.layers.Activation("linear", dtype="float32")
    inner = keras.Model(inputs, dense)
    layers = keras.layers
    return {
        "dense": (dense, True),
        "log softmax": (layers.Dense(3, "log_softmax")(x), True),
        "dense, cast": (as_float32(dense), True),
        "softmax, cast": (layers.Activation("linear")(soft), False),
        "activation layer": (layers.Activation("sigmoid")(dense), False),
        "softmax layer": (layers.Softmax()(dense), False),
        "softmax operation": (keras.ops.softmax(dense), False),
        "softmax, reshaped": (layers.Reshape((3,))(soft), False),
        "model in a model": (inner(inputs), True),
        "softmax after a model": (layers.Softmax()(inner(inputs)), False),
        "relu": (layers.Dense(3, activation="relu")(x), "relu"),
        "relu layer": (layers.ReLU()(dense), "relu"),
        "pooling": (x, "globalaveragepooling2d"),
        "norm": (layers.BatchNormalization()(soft), "batchnormalization"),
    }, inputs


def test_the_last_activation_decides():
    outputs, inputs = heads()
    for name, (output, answer) in outputs.items():
        model = keras.Model(inputs, output)
        assert (logits_model(model) is model) is (answer is True), name
        if isinstance(answer, bool):
            assert outputs_logits(model) is answer, name
        else:
            with pytest.raises(ValueError, match=f"which ends in {answer}$"):
                outputs_logits(model)
