"""Spectral normalisation against singular values, formula and golden arrays."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from tests.backends import (
    compiled,
    gradient,
    needs_tensorflow,
    to_numpy,
    weight_gradients,
)
from tests.layer_checks import check_layer, random
from ylg.layers import SpectralNormalization

GOLDEN = Path(__file__).parent.parent / "golden"


def make_conv(only_shrink=False, iterate=False, **kwargs):
    inner = keras.layers.Conv2D(
        5, 3, padding="same", name="conv", dtype=kwargs.get("dtype")
    )
    return SpectralNormalization(inner, only_shrink, iterate, **kwargs)


def make_dense(**kwargs):
    inner = keras.layers.Dense(7, name="dense", dtype=kwargs.get("dtype"))
    return SpectralNormalization(inner, **kwargs)


def make_embedding():
    return SpectralNormalization(keras.layers.Embedding(11, 3))


def built(layer, *shape, scale=1.0):
    layer.build(shape)
    variable = kernel_of(layer)
    variable.assign(scale * random(*variable.shape, seed=1))
    return layer


def kernel_of(layer):
    if isinstance(layer.layer, keras.layers.Embedding):
        return layer.layer.embeddings
    return layer.layer.kernel


def matrix_of(layer):
    kernel = to_numpy(kernel_of(layer))
    if isinstance(layer.layer, keras.layers.Embedding):
        return kernel.T
    return kernel.reshape(-1, kernel.shape[-1])


def unit(x):
    return x / np.sqrt(np.sum(x**2))


def steps(matrix, u):
    """v, u' and the two estimates of sigma, in float64."""
    u = unit(np.asarray(u, "float64"))
    v = unit(matrix.T @ u)
    after = unit(matrix @ v)
    return v, after, u @ matrix @ v, after @ matrix @ v


@pytest.mark.parametrize("make", [make_conv, make_dense])
def test_layer(make):
    check_layer(
        make,
        (2, 5, 7, 3),
        opt_out={
            "training": 'the vector that moves is not called "moving_"; '
            "tested below"
        },
    )


@pytest.mark.parametrize(
    "make, shape",
    [
        pytest.param(make_conv, (2, 6, 5, 3), marks=pytest.mark.thorough),
        (make_dense, (2, 3)),
        pytest.param(make_embedding, (2,), marks=pytest.mark.thorough),
    ],
)
def test_sigma_becomes_the_largest_singular_value(make, shape):
    layer = built(make(), *shape)
    matrix = matrix_of(layer)
    assert layer.left_singular_vector.shape == (len(matrix),)
    for _ in range(300):
        layer.spectral_norm(training=True)
    largest = np.linalg.svd(matrix, compute_uv=False)[0]
    np.testing.assert_allclose(
        to_numpy(layer.spectral_norm()), largest, rtol=1e-5
    )


def test_embedding_is_divided():
    layer = built(make_embedding(), 2)
    labels = np.array([0, 10, 4])
    *_, sigma, _ = steps(matrix_of(layer), to_numpy(layer.left_singular_vector))
    expected = to_numpy(layer.layer.embeddings)[labels] / sigma
    output = to_numpy(layer(ops.convert_to_tensor(labels)))
    np.testing.assert_allclose(output, expected, rtol=1e-5)


@pytest.mark.parametrize("iterate", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("only_shrink", [False, True])
def test_output_and_state(iterate, training, only_shrink):
    x = ops.convert_to_tensor(random(2, 4, 5, 3))
    for scale in (0.01, 1.0):
        layer = built(make_conv(only_shrink, iterate), 2, 4, 5, 3, scale=scale)
        kernel = to_numpy(layer.layer.kernel)
        before = to_numpy(layer.left_singular_vector)
        _, after, plain, iterated = steps(matrix_of(layer), before)
        sigma = iterated if training or iterate else plain
        if only_shrink:
            sigma = max(1, sigma)
        inner = keras.layers.Conv2D(5, 3, padding="same")
        inner.build(x.shape)
        inner.kernel.assign(kernel / sigma)
        output = to_numpy(layer(x, training=training))
        np.testing.assert_allclose(
            output, to_numpy(inner(x)), rtol=1e-5, atol=1e-5
        )
        np.testing.assert_array_equal(to_numpy(layer.layer.kernel), kernel)
        vector = to_numpy(layer.left_singular_vector)
        if training:
            np.testing.assert_allclose(vector, after, atol=1e-6)
        else:
            np.testing.assert_array_equal(vector, before)


def test_the_length_of_u_does_not_matter():
    layer = built(make_dense(), 2, 3)
    sigma = to_numpy(layer.spectral_norm())
    vector = to_numpy(layer.left_singular_vector)
    layer.left_singular_vector.assign(0.3 * vector)
    np.testing.assert_allclose(
        to_numpy(layer.spectral_norm()), sigma, rtol=1e-6
    )


@pytest.mark.parametrize("training", [False, True])
def test_gradient_passes_through_sigma(training):
    layer = built(make_dense(), 4, 3)
    x = random(4, 3)
    matrix = matrix_of(layer).astype("float64")
    v, after, plain, iterated = steps(
        matrix, to_numpy(layer.left_singular_vector)
    )
    u = after if training else unit(to_numpy(layer.left_singular_vector))
    sigma = iterated if training else plain
    gradients = weight_gradients(layer, x, training=training)
    direction = np.random.default_rng(0).normal(size=(4, 7)).astype("float32")
    upstream = x.T.astype("float64") @ direction
    # d sum(upstream * W / sigma), with d sigma = u' dW v.
    expected = upstream / sigma
    expected -= np.sum(upstream * matrix) / sigma**2 * np.outer(u, v)
    kernel, bias = (
        next(g for path, g in gradients.items() if path.endswith(end))
        for end in ("kernel", "bias")
    )
    np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bias, direction.sum(0), rtol=1e-4, atol=1e-5)


def test_gradient_of_the_input():
    layer = built(make_dense(), 4, 3)
    (found,) = gradient(lambda x: ops.sum(layer(x)), random(4, 3))
    sigma = to_numpy(layer.spectral_norm())
    expected = np.tile(matrix_of(layer).sum(1) / sigma, (4, 1))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("channels", [64, 128])
@pytest.mark.parametrize("name", ["theta", "phi", "g", "attn"])
def test_golden(channels, name):
    with np.load(GOLDEN / "ylg_spectral_norm.npz") as arrays:
        golden = {
            key: arrays[f"c{channels}_{name}_{key}"]
            for key in ("kernel", "u", "normalized", "u_after_training_call")
        }
    rows, columns = golden["kernel"].shape[-2:]
    inner = keras.layers.Dense(columns, use_bias=False)
    layer = SpectralNormalization(inner, iterate_at_inference=True)
    layer.build((None, rows))
    inner.kernel.assign(golden["kernel"][0, 0])
    layer.left_singular_vector.assign(golden["u"][:, 0])
    identity = ops.convert_to_tensor(np.eye(rows, dtype="float32"))
    for training in (False, True):
        used = to_numpy(layer(identity, training=training))
        np.testing.assert_allclose(used, golden["normalized"][0, 0], atol=1e-6)
    np.testing.assert_allclose(
        to_numpy(layer.left_singular_vector),
        golden["u_after_training_call"][:, 0],
        atol=1e-6,
    )


def test_the_norm_is_float32_in_half_precision():
    layer = built(make_dense(dtype="mixed_float16"), 2, 3)
    exact = built(make_dense(), 2, 3)
    vector = to_numpy(exact.left_singular_vector)
    layer.left_singular_vector.assign(vector)
    inputs = ops.convert_to_tensor(random(2, 3))
    seen = []

    class Spy(keras.layers.Dense):
        def call(self, x, training=None):
            seen.append(to_numpy(ops.cast(self.kernel, "float32")))
            return super().call(x)

    layer.layer.__class__ = Spy
    assert keras.backend.standardize_dtype(layer(inputs).dtype) == "float16"
    expected = matrix_of(exact) / to_numpy(exact.spectral_norm())
    # Rounded once, at the end.
    np.testing.assert_array_equal(
        seen[0], expected.astype("float16").astype("float32")
    )


def test_training_in_a_compiled_function_moves_u():
    layer = built(make_dense(), 2, 3)
    x = ops.convert_to_tensor(random(2, 3))
    before = to_numpy(layer.left_singular_vector)
    _, after, *_ = steps(matrix_of(layer), before)

    def step(trainable, state):
        return layer.stateless_call(trainable, state, x, training=True)

    _, state = compiled(step)(
        [v.value for v in layer.trainable_variables],
        [v.value for v in layer.non_trainable_variables],
    )
    np.testing.assert_allclose(to_numpy(state[0]), after, atol=1e-6)
    np.testing.assert_array_equal(to_numpy(layer.left_singular_vector), before)


def test_fit_keeps_the_kernel_unscaled():
    inputs = keras.Input((3,))
    layer = make_dense()
    model = keras.Model(inputs, layer(inputs))
    kernel_of(layer).assign(100 * to_numpy(kernel_of(layer)))
    before = np.abs(to_numpy(kernel_of(layer))).max()
    vector = to_numpy(layer.left_singular_vector)
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    model.fit(random(8, 3), random(8, 7), batch_size=4, verbose=0)
    assert np.abs(to_numpy(kernel_of(layer))).max() > 0.9 * before
    assert not np.array_equal(to_numpy(layer.left_singular_vector), vector)


def test_an_activity_regularizer_counts():
    inner = keras.layers.Dense(3, activity_regularizer=keras.regularizers.L2(1))
    layer = SpectralNormalization(inner)
    y = layer(ops.convert_to_tensor(random(2, 3)))
    (loss,) = layer.losses
    # Keras divides it by the batch, but 3.12 does not.
    plain = keras.layers.Activation(
        "linear", activity_regularizer=keras.regularizers.L2(1)
    )
    plain(y)
    (expected,) = plain.losses
    np.testing.assert_allclose(float(loss), float(expected), rtol=1e-5)
    sums = np.sum(to_numpy(y) ** 2) / [1, 2]
    assert np.isclose(float(loss), sums).any()


def test_a_kernel_of_zeros_stays_zero():
    layer = built(make_dense(), 2, 3, scale=0.0)
    output = to_numpy(layer(ops.convert_to_tensor(random(2, 3))))
    np.testing.assert_array_equal(output, np.zeros((2, 7)))


@needs_tensorflow
def test_export(tmp_path):
    import tensorflow as tf

    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, make_conv()(inputs))
    x = random(2, 4, 4, 3)
    model.export(tmp_path, verbose=False)
    loaded = tf.saved_model.load(tmp_path)
    np.testing.assert_allclose(loaded.serve(x), to_numpy(model(x)), atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [keras.layers.ReLU(), keras.layers.Conv2DTranspose(2, 3)],
    ids=["no kernel", "another layout"],
)
def test_other_layers_are_refused(layer):
    with pytest.raises(ValueError, match="layer must be a Conv1D, Conv2D"):
        SpectralNormalization(layer)
