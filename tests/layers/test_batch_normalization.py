"""Batch normalisation equals Keras's, whatever way it is computed."""

import keras
import numpy as np
import pytest
from keras import ops

from kanets.layers import BatchNormalization
from tests.backends import needs_tensorflow, to_numpy


def pair(shape, **arguments):
    """Keras's layer and ours, of the same weights."""
    theirs = keras.layers.BatchNormalization(**arguments)
    ours = BatchNormalization(**arguments)
    random = np.random.default_rng(0)
    for layer in (theirs, ours):
        layer.build(shape)
    weights = [random.uniform(0.5, 2.0, w.shape) for w in theirs.weights]
    theirs.set_weights(weights)
    ours.set_weights(weights)
    return theirs, ours


def maps(shape):
    return np.random.default_rng(1).normal(3.0, 2.0, shape).astype("float32")


@pytest.mark.parametrize(
    "dtype",
    [
        "float32",
        pytest.param("float64", marks=needs_tensorflow),
        "mixed_float16",
        "bfloat16",
    ],
)
@pytest.mark.parametrize("shape", [(4, 5, 6, 8), (2, 1, 1, 8), (1, 1, 1, 8)])
@pytest.mark.parametrize("training", [True, False])
def test_results_and_moving_averages_are_those_of_keras(dtype, shape, training):
    theirs, ours = pair(shape, dtype=dtype, momentum=0.9, epsilon=1e-2)
    x = maps(shape)
    for _ in range(2):
        expected = theirs(x, training=training)
        found = ours(x, training=training)
    assert found.dtype == expected.dtype
    tolerance = 2e-2 if "16" in dtype else 2e-5
    np.testing.assert_allclose(
        to_numpy(ops.cast(found, "float32")),
        to_numpy(ops.cast(expected, "float32")),
        rtol=tolerance,
        atol=tolerance,
    )
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        mine, other = (to_numpy(w).astype("float32") for w in (mine, other))
        np.testing.assert_allclose(mine, other, rtol=1e-5)


def assert_close(found, expected):
    np.testing.assert_allclose(
        to_numpy(found), to_numpy(expected), rtol=1e-5, atol=1e-5
    )


def test_a_keras_that_has_no_renormalisation():
    theirs, ours = pair((2, 3, 3, 8))
    vars(ours).pop("renorm", None)
    x = maps((2, 3, 3, 8))
    assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({"axis": 1}, (2, 8, 3, 3)),
        ({"center": False}, (2, 3, 3, 8)),
        ({"scale": False}, (2, 3, 3, 8)),
        ({"epsilon": 1e-6}, (2, 3, 3, 8)),
        ({}, (6, 8)),
        ({}, (2, 5, 8)),
    ],
)
def test_other_forms_are_those_of_keras(arguments, shape):
    theirs, ours = pair(shape, **arguments)
    x = maps(shape)
    assert_close(ours(x, training=True), theirs(x, training=True))


def test_a_mask_is_heeded():
    theirs, ours = pair((2, 4, 4, 8))
    x, mask = maps((2, 4, 4, 8)), np.zeros((2, 4, 4), bool)
    mask[:, :2] = True
    expected = theirs(x, training=True, mask=mask)
    found = ours(x, training=True, mask=mask)
    assert_close(found, expected)
    unmasked = pair((2, 4, 4, 8))[1](x, training=True)
    assert np.abs(to_numpy(found - unmasked)).max() > 1e-2


def test_a_frozen_layer_keeps_its_averages():
    layer = pair((4, 3, 3, 8))[1]
    before = [to_numpy(w) for w in layer.weights]
    x = maps((4, 3, 3, 8))
    layer.trainable = False
    found = layer(x, training=True)
    np.testing.assert_allclose(
        to_numpy(found), to_numpy(layer(x, training=False))
    )
    for weight, old in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), old)


def test_a_model_of_it_is_saved_and_loaded(tmp_path):
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, BatchNormalization(momentum=0.8)(inputs))
    model.layers[-1].set_weights([np.full(3, 2.0)] * 4)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[-1]) is BatchNormalization
    assert loaded.layers[-1].momentum == 0.8
    x = maps((2, 4, 4, 3))
    np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(model(x)))


@needs_tensorflow
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("jit_compile", [True, False])
def test_gradients_are_those_of_keras(training, jit_compile):
    import tensorflow as tf

    x = tf.constant(maps((4, 5, 6, 8)))

    def gradients(layer):
        @tf.function(jit_compile=jit_compile)
        def run(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_mean(layer(x, training=training) ** 3)
            variables = [v.value for v in layer.trainable_variables]
            return tape.gradient(loss, [x, *variables])

        return run(x)

    theirs, ours = pair(x.shape)
    for mine, other in zip(gradients(ours), gradients(theirs), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


@needs_tensorflow
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("epsilon", "fused"), [(1e-3, True), (1.001e-5, True), (1e-5, False)]
)
def test_it_is_one_operation_from_cudnns_least_epsilon_on(
    epsilon, fused, training
):
    import tensorflow as tf

    layer = pair((None, 4, 4, 8), epsilon=epsilon)[1]

    @tf.function
    def run(x):
        return layer(x, training=training)

    graph = run.get_concrete_function(tf.TensorSpec((None, 4, 4, 8))).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("FusedBatchNormV3") == fused
    assert ("Rsqrt" in kinds) != fused
