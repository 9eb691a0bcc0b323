"""What people insert into convolutional nets, with the weights of a golden
file; see `references`. The kind is told by the beginning of the case's name."""

import functools

import keras
import numpy as np

from kanets.zoo import foreign
from tests.attention import golden_gates, golden_tokens
from tests.backends import dot, gradient, to_numpy


def convnet_attention(case, arrays):
    """Modules of timm and mmcv; arrays are (B, C, H, W)."""
    # Of beginnings that fit the longest: "se" is one of other cases, too.
    starts = {**golden_gates.MECHANISMS, **golden_tokens.BUILDERS}
    start = max(filter(case.startswith, starts), key=len)
    if start in golden_tokens.BUILDERS:
        return golden_tokens.BUILDERS[start](case, arrays)
    weights = _prefixed(arrays, "weight:")
    layer, names = starts[start](_prefixed(arrays, "hyper:") | weights)
    inputs = keras.Input(np.moveaxis(arrays["input"], 1, -1).shape[1:])
    model = keras.Model(inputs, layer(inputs))
    present = foreign.variables_by_layer(model)
    names = {place: name for place, name in names.items() if place in present}
    foreign.fill(model, weights, names, case)
    # Where a gradient of a weight stands in the file, as ours lie.
    layer.golden_names = {}
    for place, (kind, prefix) in names.items():
        for name, variable in present[place].items():
            suffix, axes = foreign.KINDS[kind][name]
            layer.golden_names[variable.path] = (
                f"{prefix}.{suffix}",
                functools.partial(np.transpose, axes=axes),
            )

    def call(input):
        x = keras.ops.convert_to_tensor(input)
        output = layer(keras.ops.transpose(x, (0, 2, 3, 1)), training=False)
        return keras.ops.transpose(output, (0, 3, 1, 2))

    return layer, call


def differences(case, arrays):
    """How far ours is from a case, relative to the largest entry of each array.

    Returns:
        A dict: "output", "grad_input" and "grad_weight:<name>" to numbers;
        what is 0 in theory, such as the gradient of a bias in front of a
        softmax, relative to the largest of all arrays.
    """
    layer, call = convnet_attention(case, arrays)
    variables = layer.trainable_variables

    def loss(input, *values):
        with keras.StatelessScope(list(zip(variables, values, strict=True))):
            return dot(call(input), arrays["cotangent"])

    output = to_numpy(call(arrays["input"]))
    of_input, *of_weights = gradient(
        loss, arrays["input"], *map(to_numpy, variables)
    )
    found = {"output": output, "grad_input": of_input}
    expected = {name: arrays[name] for name in found if name in arrays}
    for variable, actual in zip(variables, of_weights, strict=True):
        name, turned = layer.golden_names[variable.path]
        name = f"grad_weight:{name}"
        found[name], expected[name] = actual, turned(arrays[name])
    largest = {name: np.abs(array).max() for name, array in expected.items()}
    return {
        name: np.abs(found[name] - array).max()
        / (largest[name] if largest[name] > 1e-3 else max(largest.values()))
        for name, array in expected.items()
    }


def _prefixed(arrays, prefix):
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


KINDS = {"convnet": convnet_attention}
