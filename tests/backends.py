"""What the tests need of the backend and Keras does not offer alike."""

import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()
needs_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="about tf.function or SavedModel"
)

needs_gan_steps = pytest.mark.skipif(
    BACKEND == "torch",
    reason="needs TensorFlow or JAX: GANs train and invert on no other backend",
)
needs_8_bits = pytest.mark.skipif(
    BACKEND == "torch",
    reason="needs TensorFlow or JAX: for 8 bits no other backend trains",
)
needs_xla = pytest.mark.skipif(
    BACKEND == "torch", reason="about XLA; PyTorch's compiler takes minutes"
)
counts_once = pytest.mark.skipif(
    BACKEND != "tensorflow",
    reason="a count, alike on all backends, and made on TensorFlow",
)


def thorough_on_jax(test):
    """Marks what JAX compiles for a minute, and TensorFlow tests quickly."""
    return pytest.mark.thorough(test) if BACKEND == "jax" else test


def few_on_jax(cases):
    """The first case as it is, the others `thorough_on_jax`.

    Call by call JAX compiles each operation anew for each shape.
    """
    first, *others = cases
    if BACKEND != "jax":
        return [first, *others]
    return [
        first,
        *(
            pytest.param(
                *(case if isinstance(case, tuple) else (case,)),
                marks=pytest.mark.thorough,
            )
            for case in others
        ),
    ]


def to_numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def dot(tensor, array):
    """Sum of a tensor times an array, which not every backend multiplies."""
    array = keras.ops.convert_to_tensor(array, tensor.dtype)
    return keras.ops.sum(tensor * array)


def gradient(function, *tensors):
    """Gradients of a scalar function with respect to its float tensors.

    Zeros, where it does not depend on one.
    """
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tensors = [tf.convert_to_tensor(t) for t in tensors]
        with tf.GradientTape() as tape:
            for tensor in tensors:
                tape.watch(tensor)
            value = function(*tensors)
        grads = tape.gradient(value, tensors, unconnected_gradients="zero")
        return [to_numpy(g) for g in grads]
    if BACKEND == "torch":
        tensors = [_leaf(t) for t in tensors]
        return _torch_gradients(function(*tensors), tensors)
    import jax

    tensors = [keras.ops.convert_to_tensor(t) for t in tensors]
    grads = jax.jit(jax.grad(function, argnums=tuple(range(len(tensors)))))(
        *tensors
    )
    return [to_numpy(g) for g in grads]


def compiled(function):
    """The function as one XLA program; PyTorch runs it as it is written."""
    if BACKEND == "torch":
        return function
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    import jax

    return jax.jit(function)


def weight_gradients(layer, inputs, **arguments):
    """Gradient of the output, in a random direction, for every weight.

    The squared output would not do: after a batch normalisation its mean does
    not depend on what came before.
    """

    def loss(values):
        output, _ = layer.stateless_call(
            values,
            [v.value for v in layer.non_trainable_variables],
            inputs,
            **arguments,
        )
        direction = np.random.default_rng(0).normal(size=output.shape)
        return dot(output, direction)

    # `stateless_call` leaves inputs as they are given.
    inputs = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
    values = [v.value for v in layer.trainable_variables]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        values = [tf.convert_to_tensor(v) for v in values]
        with tf.GradientTape() as tape:
            for value in values:
                tape.watch(value)
            result = loss(values)
        grads = tape.gradient(result, values)
    elif BACKEND == "torch":
        values = [_leaf(v) for v in values]
        grads = _torch_gradients(loss(values), values)
    else:
        import jax

        grads = jax.jit(jax.grad(loss))(values)
    names = [v.path for v in layer.trainable_variables]
    return dict(zip(names, [to_numpy(g) for g in grads], strict=True))


def _leaf(tensor):
    """The tensor where PyTorch's gradients end."""
    tensor = keras.ops.convert_to_tensor(tensor)
    return tensor.detach().clone().requires_grad_()


def _torch_gradients(value, leaves):
    import torch

    if not leaves:
        return []
    grads = torch.autograd.grad(value, leaves, materialize_grads=True)
    return [to_numpy(g) for g in grads]
