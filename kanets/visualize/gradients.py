"""The gradient of a number, which Keras has for no backend."""

import keras

from ylg.backends import for_backend


def gradient(function, array):
    """Gradient of a function at an array.

    Args:
        function: from a float32 tensor to a scalar tensor, on `keras.ops`.
        array: float32 array.

    Returns:
        float32 array of its shape; zeros where the function does not depend
        on it.

    Raises:
        ValueError: another backend than TensorFlow, JAX and PyTorch.
    """
    of_backend = for_backend(
        "Grad-CAM", tensorflow=_tensorflow, jax=_jax, torch=_torch
    )
    return keras.ops.convert_to_numpy(of_backend(function, array))


def _tensorflow(function, array):
    import tensorflow as tf

    x = tf.convert_to_tensor(array)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = function(x)
    zeros = tf.UnconnectedGradients.ZERO
    return tape.gradient(value, x, unconnected_gradients=zeros)


def _jax(function, array):
    import jax

    return jax.grad(function)(keras.ops.convert_to_tensor(array))


def _torch(function, array):
    import torch

    x = keras.ops.convert_to_tensor(array).detach().requires_grad_()
    [found] = torch.autograd.grad(
        function(x), [x], allow_unused=True, materialize_grads=True
    )
    return found
