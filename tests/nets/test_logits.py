"""The logits of a net, as a model that trains it."""

import keras
import numpy as np
import pytest

from kanets.nets import KANetSegmenter, logits_model
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
}


def make(head):
    inputs = keras.Input((2, 4, 5), name="maps")
    x = keras.layers.BatchNormalization(name="bn")(inputs)
    for layer in head:
        x = type(layer).from_config(layer.get_config())(x)
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
