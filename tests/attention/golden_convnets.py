"""What people insert into convolutional nets, with the weights of a golden
file; see `references`. The kind is told by the beginning of the case's name."""

import keras
import numpy as np

from kanets.attention import (
    LinearAttention,
    MultiQueryAttention,
    SingleHeadAttention,
)
from kanets.zoo import foreign
from tests.attention import golden_gates
from tests.backends import dot, gradient, to_numpy


def multi_query(hyper):
    sizes = {"query_stride": "query_strides", "key_stride": "kv_stride"}
    layer = MultiQueryAttention(
        int(hyper["num_heads"]),
        int(hyper["key_dim"]),
        int(hyper["value_dim"]),
        **{ours: int(hyper.get(n, 1)) for ours, n in sizes.items()},
        padding=str(hyper.get("padding", "symmetric")),
        scale="rsqrt",
        name="layer",
    )
    names = {"layer/query_norm": ("norm", "query.norm")}
    for part in ("query", "key", "value", "output"):
        names[f"layer/{part}"] = ("conv", f"{part}.proj")
    for part in ("key", "value"):
        names[f"layer/{part}_depthwise"] = ("depthwise", f"{part}.down_conv")
        names[f"layer/{part}_norm"] = ("norm", f"{part}.norm")
    return layer, names


def linear(hyper):
    size = int(hyper["dim"])
    scales = [int(n) for n in str(hyper["scales"]).strip("(),").split(",") if n]
    layer = LinearAttention(
        int(hyper["in_channels"]) // size,
        size,
        kernel_sizes=scales,
        output_channels=int(hyper["out_channels"]),
        name="layer",
    )
    names = {
        "layer/maps": ("conv", "qkv.conv"),
        "layer/output": ("conv", "proj.conv"),
        "layer/output_norm": ("norm", "proj.norm"),
    }
    for i in range(len(scales)):
        names[f"layer/depthwise_{i}"] = ("depthwise", f"aggreg.{i}.0")
        names[f"layer/groups_{i}"] = ("conv", f"aggreg.{i}.1")
    return layer, names


def single_head(hyper):
    layer = SingleHeadAttention(
        int(hyper["pdim"]), int(hyper["qk_dim"]), scale="rsqrt", name="layer"
    )
    return layer, {
        "layer/norm": ("norm", "pre_norm"),
        "layer/maps": ("conv", "qkv.c"),
        "layer/maps_norm": ("norm", "qkv.bn"),
        "layer/output": ("conv", "proj.1.c"),
        "layer/output_norm": ("norm", "proj.1.bn"),
    }


MECHANISMS = {
    **golden_gates.MECHANISMS,
    "mqa": multi_query,
    "lite_mla": linear,
    "single_head_partial": single_head,
}


def convnet_attention(case, arrays):
    """timm's modules; arrays are (B, C, H, W), of weights "weight:<name>"."""
    # Of beginnings that fit the longest: "se" is one of other cases, too.
    start = max(filter(case.startswith, MECHANISMS), key=len)
    weights = _prefixed(arrays, "weight:")
    layer, names = MECHANISMS[start](_prefixed(arrays, "hyper:") | weights)
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
            layer.golden_names[variable.path] = (f"{prefix}.{suffix}", axes)

    def call(input):
        x = keras.ops.convert_to_tensor(input)
        output = layer(keras.ops.transpose(x, (0, 2, 3, 1)), training=False)
        return keras.ops.transpose(output, (0, 3, 1, 2))

    return layer, call


def differences(case, arrays):
    """How far ours is from a case, relative to the largest entry of each array.

    Returns:
        A dict: "output", "grad_input" and "grad_weight:<name>" to numbers, of
        gradients below 1 the difference itself, as some are 0 in theory.
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
        name, axes = layer.golden_names[variable.path]
        name = f"grad_weight:{name}"
        found[name], expected[name] = actual, arrays[name].transpose(axes)
    return {
        name: np.abs(found[name] - array).max() / max(1, np.abs(array).max())
        for name, array in expected.items()
    }


def _prefixed(arrays, prefix):
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


KINDS = {"convnet": convnet_attention}
