"""Conditional batch normalisation against its formula in NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.backends import to_numpy
from tests.layer_checks import check_layer, fill_weights, random
from ylg.layers.conditional_batch_normalization import (
    ConditionalBatchNormalization,
)

CLASSES = 5


@keras.saving.register_keras_serializable(package="tests")
class WithLabels(ConditionalBatchNormalization):
    """The layer on pictures alone, the n-th of class n mod 3."""

    def build(self, input_shape):
        super().build([input_shape, (input_shape[0],)])

    def call(self, x, training=False):
        labels = ops.arange(ops.shape(x)[0]) % 3
        return super().call([x, labels], training)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


def formula(x, labels, weights, epsilon, statistics=None):
    x = x.astype("float64")
    mean, variance = statistics
    result = np.empty_like(x)
    for index, label in enumerate(labels):
        normal = (x[index] - mean) / np.sqrt(variance + epsilon)
        result[index] = (
            weights["gamma"][label] * normal + weights["beta"][label]
        )
    return result


def filled(*shape, **kwargs):
    layer = ConditionalBatchNormalization(CLASSES, **kwargs)
    layer.build([shape, shape[:1]])
    fill_weights(layer.weights, layer.name)
    return layer, {v.name: to_numpy(v) for v in layer.weights}


def test_layer():
    check_layer(lambda **k: WithLabels(3, **k), (4, 5, 3, 7))


@pytest.mark.parametrize("shape", [(4, 3, 5, 2), (4, 6), (3, 1, 1, 2)])
def test_values(shape):
    layer, weights = filled(*shape, momentum=0.7, epsilon=0.1)
    x, labels = random(*shape), np.array([4, 0, 2, 2])[: shape[0]]
    inputs = [ops.convert_to_tensor(x), ops.convert_to_tensor(labels)]
    moving = (weights["moving_mean"], weights["moving_variance"])
    output = to_numpy(layer(inputs))
    expected = formula(x, labels, weights, 0.1, moving)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)

    axes = tuple(range(len(shape) - 1))
    batch = (x.mean(axes), x.var(axes))  # the biased variance
    output = to_numpy(layer(inputs, training=True))
    expected = formula(x, labels, weights, 0.1, batch)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
    for name, old, new in zip(
        ("moving_mean", "moving_variance"), moving, batch, strict=True
    ):
        np.testing.assert_allclose(
            to_numpy(getattr(layer, name)), 0.7 * old + 0.3 * new, rtol=1e-5
        )


def test_start_is_plain_batch_normalization():
    x = ops.convert_to_tensor(random(4, 3, 3, 2))
    labels = ops.convert_to_tensor([0, 1, 2, 3])
    ours = ConditionalBatchNormalization(CLASSES)
    plain = keras.layers.BatchNormalization()
    for training in (True, False):
        np.testing.assert_allclose(
            to_numpy(ours([x, labels], training=training)),
            to_numpy(plain(x, training=training)),
            atol=1e-5,
        )
    assert ours.gamma.shape == ours.beta.shape == (CLASSES, 2)


def test_frozen_layer_uses_moving_averages():
    layer, weights = filled(4, 3, 3, 2)
    layer.trainable = False
    x = [ops.convert_to_tensor(random(4, 3, 3, 2)), ops.zeros(4, "int32")]
    np.testing.assert_array_equal(
        to_numpy(layer(x, training=True)), to_numpy(layer(x))
    )
    np.testing.assert_array_equal(
        to_numpy(layer.moving_mean), weights["moving_mean"]
    )


def test_large_float16_does_not_overflow():
    layer = ConditionalBatchNormalization(2, dtype="mixed_float16")
    x = 3e4 + 1e3 * random(4, 8, 8, 3)
    output = layer(
        [ops.convert_to_tensor(x.astype("float16")), ops.zeros(4, "int32")],
        training=True,
    )
    assert keras.backend.standardize_dtype(output.dtype) == "float16"
    output = to_numpy(ops.cast(output, "float32"))
    np.testing.assert_allclose(output.std(), 1, atol=0.02)


def test_labels_out_of_range_are_the_nearest_class():
    layer, _ = filled(4, 3, 3, 2)
    x = ops.convert_to_tensor(random(4, 3, 3, 2))
    wrong = layer([x, ops.convert_to_tensor([-1, 5, 99, 2])])
    right = layer([x, ops.convert_to_tensor([0, 4, 4, 2])])
    np.testing.assert_array_equal(to_numpy(wrong), to_numpy(right))


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"num_classes": 0}, "num_classes must be a positive.*num_classes=0"),
        ({"num_classes": 2, "momentum": 2}, "momentum must be.*momentum=2"),
        ({"num_classes": 2, "epsilon": 0}, "epsilon must be.*epsilon=0"),
    ],
)
def test_wrong_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        ConditionalBatchNormalization(**arguments)


@pytest.mark.parametrize(
    "shape, text",
    [
        ((2, 4, 4, 3), "must be a pair"),
        ([(2, 4, 4, None), (2,)], "known channels"),
        ([(2, 4, 4, 3), (2, 1)], r"labels \(batch,\)"),
    ],
)
def test_wrong_shapes(shape, text):
    with pytest.raises(ValueError, match=text):
        ConditionalBatchNormalization(3).build(shape)
