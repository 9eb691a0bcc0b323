"""Axial attention with the weights of a golden file; see `references`."""

import keras
import numpy as np

from kanets.attention import AxialAttention


def set_maps(layer, kernels, biases=None):
    """Sets kernels by the names of maps; biases, or zeros where there are."""
    biases = {} if biases is None else biases
    for variable in layer.weights:
        _, name, kind = variable.path.rsplit("/", 2)
        if kind == "kernel":
            variable.assign(kernels[name])
        else:
            variable.assign(biases.get(name, np.zeros(variable.shape)))


def axial(case, arrays):
    """axial-attention's `AxialAttention`: it has a bias after o alone."""
    x = arrays["input"]
    channel_axis, heads = int(arrays["channel_axis"]), int(arrays["heads"])
    axes = range(x.ndim - 2)
    layer = AxialAttention(
        mode="sum" if arrays["sum_axial_out"] else "sequential",
        num_heads=heads,
        projections="qkvo",
        key_dim=len(arrays["axial_attentions.0.fn.to_q.weight"]) // heads,
        scale="rsqrt",
        use_bias=True,
    )
    layer.build(np.moveaxis(x, channel_axis, -1).shape)
    set_maps(layer, *axial_maps(arrays, axes))

    def call(input):
        x = keras.ops.moveaxis(
            keras.ops.convert_to_tensor(input), channel_axis, -1
        )
        return keras.ops.moveaxis(layer(x), -1, channel_axis)

    return layer, call


def axial_maps(arrays, axes, prefix=""):
    """Kernels and biases, or with "grad_" their gradients, by our names."""
    kernels, biases = {}, {}
    for axis in axes:
        name = f"{prefix}axial_attentions.{axis}.fn.to_"
        kernels[f"query_{axis}"] = arrays[f"{name}q.weight"].T
        both = np.split(arrays[f"{name}kv.weight"].T, 2, axis=1)
        kernels[f"key_{axis}"], kernels[f"value_{axis}"] = both
        kernels[f"output_{axis}"] = arrays[f"{name}out.weight"].T
        biases[f"output_{axis}"] = arrays[f"{name}out.bias"]
    return kernels, biases


KINDS = {"axial": axial}
