"""Initializers of layers that make several kernels from one."""

import keras


def fresh(initializer):
    """A copy, so that two kernels of a shape do not start equal.

    Args:
        initializer: what `keras.initializers.get` returns: an
            `Initializer`, or a function (shape, dtype) -> tensor, which has
            no state and is returned as it is.
    """
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    return initializer.clone()
