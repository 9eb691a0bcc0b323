"""Multiply-adds against counts by hand, and against published ones."""

import keras
import numpy as np
import pytest

import kanets
import ylg
from kanets.nets.multiply_adds import multiply_adds
from tests.backends import BACKEND, needs_tensorflow


@needs_tensorflow
@pytest.mark.parametrize(
    ("attention", "millions"),
    # By hand in test_kanet.py, from the layers.
    [
        ("kao_qkv", 281.1),
        pytest.param("kao_kv", 288.4, marks=pytest.mark.thorough),
        pytest.param("dense", 365.4, marks=pytest.mark.thorough),
        pytest.param(None, 264.9, marks=pytest.mark.thorough),
    ],
)
def test_kanet_as_counted_by_hand(attention, millions):
    count = multiply_adds(kanets.KANet(attention=attention))
    assert isinstance(count, int)
    assert abs(count / 1e6 - millions) < 0.1


@needs_tensorflow
@pytest.mark.parametrize(
    ("net", "millions"), [("MobileNetV2", 300), ("MobileNetV3Small", 56)]
)
def test_published_counts(net, millions):
    """Sandler et al., CVPR 2018, table 4; Howard et al., ICCV 2019, table 3."""
    model = getattr(keras.applications, net)(
        input_shape=(224, 224, 3), weights=None
    )
    assert abs(multiply_adds(model) / 1e6 / millions - 1) < 0.02


def one_layer(layer, shape):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs))


@needs_tensorflow
@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (
            keras.layers.Conv2D(5, (3, 2), padding="same"),
            7 * 6 * 3 * 2 * 4 * 5,
        ),
        (keras.layers.Conv2D(5, (3, 2), strides=2), 3 * 3 * 3 * 2 * 4 * 5),
        (
            keras.layers.Conv2D(6, 3, padding="same", groups=2),
            7 * 6 * 9 * 2 * 6,
        ),
        (
            keras.layers.DepthwiseConv2D((3, 2), depth_multiplier=2),
            5 * 5 * 3 * 2 * 4 * 2,
        ),
        (
            keras.layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
            7 * 6 * 4 * 9 * 5,
        ),
        (keras.layers.Dense(5), 7 * 6 * 4 * 5),
        (
            keras.layers.EinsumDense("bhwc,cd->bhwd", (7, 6, 5)),
            7 * 6 * 4 * 5,
        ),
        (keras.layers.BatchNormalization(), 0),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_layers_as_counted_by_hand(layer, expected):
    """On a map of 7x6 cells with four channels."""
    assert multiply_adds(one_layer(layer, (7, 6, 4))) == expected


class Products(keras.layers.Layer):
    """(x y) twice, in functions that are called from a function."""

    def call(self, x):
        import tensorflow as tf

        inner = tf.function(lambda a: tf.einsum("...ij,...kj->...ik", a, a))
        outer = tf.function(lambda a: inner(a) + inner(a), jit_compile=True)
        return outer(x) + tf.matmul(x, x, transpose_b=True)


class Loop(keras.layers.Layer):
    def call(self, x):
        import tensorflow as tf

        return tf.while_loop(
            lambda a: tf.reduce_sum(a) < 1, lambda a: (tf.matmul(a, a),), [x]
        )[0]


@needs_tensorflow
def test_functions_within_functions():
    model = one_layer(Products(), (5, 3))
    assert multiply_adds(model) == 3 * 5 * 5 * 3


@needs_tensorflow
def test_loops_are_refused():
    with pytest.raises(ValueError, match="loop or a branch .*While"):
        multiply_adds(one_layer(Loop(), (3, 3)))


@pytest.mark.thorough
@needs_tensorflow
def test_several_inputs():
    gan = ylg.SAGAN(32, 2, num_classes=3, latent_size=4, attention=None)
    kernels = {
        layer.name: int(np.prod(layer.weights[0].shape))
        for layer in gan.generator.layers
        if layer.weights
    }
    assert (
        multiply_adds(gan.generator)
        >= kernels["dense"] + 32 * 32 * (kernels["conv"])
    )
    assert multiply_adds(gan.discriminator) > 0
    with pytest.raises(ValueError, match="one input. .*'discriminator' with 2"):
        multiply_adds(gan.discriminator, (32, 32, 3))


@pytest.mark.thorough
@needs_tensorflow
def test_open_sizes():
    arguments = {"alpha": 0.1, "classes": 3, "strides": (2, 1, 2, 1, 1)}
    model = kanets.KANet((None, None, 3), **arguments)
    for shape in ((16, 16, 3), (24, 20, 3)):
        known = kanets.KANet(shape, **arguments)
        assert multiply_adds(model, shape) == multiply_adds(known)
    with pytest.raises(ValueError, match=r"needs input_shape=.*'kanet'"):
        multiply_adds(model)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="about the others")
def test_other_backends_are_refused():
    inputs = keras.Input((3,))
    with pytest.raises(ValueError, match=f"needs the Tensor.*'{BACKEND}'"):
        multiply_adds(keras.Model(inputs, inputs))
