"""Weights of the Inception of 2015 that anyone can make, of names and shapes.

Those of the golden arrays: NumPy alone, a generator for each name.
"""

import zlib

import numpy as np


def make_weights(shapes):
    """Arrays as a `.pth` file has them.

    Args:
        shapes: dict from names to shapes, in the layout of that file.
    """
    return {name: _make(name, tuple(shape)) for name, shape in shapes.items()}


def _make(name, shape):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, "int64")
    if name.endswith(("bn.weight", "running_var")):
        return rng.uniform(0.5, 1.5, shape).astype("float32")
    value = rng.standard_normal(shape)
    if name.endswith("conv.weight"):
        value *= np.sqrt(2.5 / np.prod(shape[1:]))
    else:
        value *= 0.09 if name == "fc.weight" else 0.1
    if len(shape) > 1:
        value -= value.mean(axis=tuple(range(1, len(shape))), keepdims=True)
    return value.astype("float32")
