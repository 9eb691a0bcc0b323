"""Rounding to 8 bits, against loops, with the gradient of the identity."""

import math

import numpy as np
import pytest

from kanets.quantization import (
    fake_quantize,
    fake_quantize_kernel,
    operators,
)
from tests.backends import BACKEND, dot, gradient, needs_8_bits, to_numpy

pytestmark = needs_8_bits

RANGES = [(-1.0, 3.0), (0.0, 6.0), (-0.3, 0.0), (-2.7, 0.1)]


def numbers(*shape, scale=3.0, seed=0):
    draw = np.random.default_rng(seed).normal(scale=scale, size=shape)
    return draw.astype("float32")


def rounded(x, low, high):
    """Number by number: what it is rounded to, and whether it is inside."""
    step = (high - low) / 255
    zero = min(max(math.floor(0.5 - low / step), 0), 255)
    values, inside = np.zeros_like(x), np.zeros_like(x)
    for place in np.ndindex(x.shape):
        level = math.floor(float(x[place]) / step + zero + 0.5)
        values[place] = (min(max(level, 0), 255) - zero) * step
        inside[place] = -zero * step <= x[place] <= (255 - zero) * step
    return values, inside


@pytest.mark.parametrize("low, high", RANGES)
@pytest.mark.parametrize("plain", [False, True])
def test_numbers_are_rounded_within_a_range(low, high, plain, monkeypatch):
    if plain:  # what other backends compute, on each
        monkeypatch.setattr(
            operators.keras.backend, "backend", lambda: "another"
        )
    x = numbers(3, 7, 5)
    expected, inside = rounded(x, low, high)
    assert 0 < inside.mean() < 1
    found = to_numpy(fake_quantize(x, low, high))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert len(np.unique(found)) <= 256
    assert not to_numpy(fake_quantize(np.zeros(1, "float32"), low, high)).any()
    direction = numbers(3, 7, 5, seed=1)
    (found,) = gradient(
        lambda x: dot(fake_quantize(x, low, high), direction), x
    )
    np.testing.assert_allclose(found, direction * inside, atol=1e-6)


def test_a_range_of_nothing_gives_zeros():
    found = to_numpy(fake_quantize(np.zeros((2, 3), "float32"), 0.0, 0.0))
    np.testing.assert_array_equal(found, np.zeros((2, 3)))


def test_half_precision_is_rounded_in_float32():
    import keras

    x = keras.ops.cast(numbers(4, 5), "bfloat16")
    found = fake_quantize(x, -1.0, 3.0)
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    wide = to_numpy(keras.ops.cast(x, "float32"))
    found = to_numpy(keras.ops.cast(found, "float32"))
    expected, _ = rounded(wide, -1.0, 3.0)
    np.testing.assert_allclose(found, expected, rtol=2**-8)


@pytest.mark.parametrize(
    "shape, axes", [((3, 3, 2, 5), (0, 1, 2)), ((3, 2, 5, 2), (0, 1))]
)
def test_kernels_have_a_scale_for_each_channel(shape, axes):
    kernel = numbers(*shape)
    kernel[..., -1] = 0  # a channel of nothing
    expected = np.zeros_like(kernel)
    channels = shape[len(axes) :]
    for channel in np.ndindex(channels):
        step = np.abs(kernel[(..., *channel)]).max() / 127
        for place in np.ndindex(shape[: len(axes)]):
            if step:
                level = round(float(kernel[place + channel] / step))
                assert abs(level) <= 127
                expected[place + channel] = level * step
    found = to_numpy(fake_quantize_kernel(kernel, axes))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    direction = numbers(*shape, seed=1)
    (found,) = gradient(
        lambda k: dot(fake_quantize_kernel(k, axes), direction), kernel
    )
    np.testing.assert_allclose(found, direction, atol=1e-6)


def test_folding_and_rounding_a_kernel_commute():
    kernel, scale = numbers(3, 3, 4, 6), numbers(6, seed=2)
    axes = (0, 1, 2)
    folded = to_numpy(fake_quantize_kernel(kernel * scale, axes))
    rounded_first = to_numpy(fake_quantize_kernel(kernel, axes)) * scale
    np.testing.assert_allclose(folded, rounded_first, atol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow's own")
def test_tensorflows_operation_is_what_converters_read():
    import tensorflow as tf

    graph = tf.function(lambda x: fake_quantize(x, -1.0, 3.0))
    graph = graph.get_concrete_function(tf.TensorSpec((2, 3))).graph
    kinds = {operation.type for operation in graph.get_operations()}
    assert "FakeQuantWithMinMaxVars" in kinds
