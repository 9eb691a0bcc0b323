"""What the tests need of the backend and Keras does not offer alike."""

import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()
needs_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="about tf.function or SavedModel"
)

counts_once = pytest.mark.skipif(
    BACKEND == "jax",
    reason="a count, alike on all backends; JAX compiles every initializer",
)


def to_numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def gradient(function, *tensors):
    """Gradients of a scalar function with respect to its float tensors."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tensors = [tf.convert_to_tensor(t) for t in tensors]
        with tf.GradientTape() as tape:
            for tensor in tensors:
                tape.watch(tensor)
            value = function(*tensors)
        return [to_numpy(g) for g in tape.gradient(value, tensors)]
    import jax

    tensors = [keras.ops.convert_to_tensor(t) for t in tensors]
    grads = jax.jit(jax.grad(function, argnums=tuple(range(len(tensors)))))(
        *tensors
    )
    return [to_numpy(g) for g in grads]


def compiled(function):
    """The function as one XLA program."""
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
        return keras.ops.sum(output * direction.astype("float32"))

    values = [v.value for v in layer.trainable_variables]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        values = [tf.convert_to_tensor(v) for v in values]
        with tf.GradientTape() as tape:
            for value in values:
                tape.watch(value)
            result = loss(values)
        grads = tape.gradient(result, values)
    else:
        import jax

        grads = jax.jit(jax.grad(loss))(values)
    names = [v.path for v in layer.trainable_variables]
    return dict(zip(names, [to_numpy(g) for g in grads], strict=True))
