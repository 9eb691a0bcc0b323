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
    "mqa": multi_query,
    "lite_mla": linear,
    "single_head_partial": single_head,
}


def convnet_attention(case, arrays):
    """timm's modules; arrays are (B, C, H, W), of weights "weight:<name>"."""
    make = next(m for start, m in MECHANISMS.items() if case.startswith(start))
    layer, names = make(_prefixed(arrays, "hyper:"))
    inputs = keras.Input(np.moveaxis(arrays["input"], 1, -1).shape[1:])
    model = keras.Model(inputs, layer(inputs))
    present = foreign.variables_by_layer(model)
    names = {place: name for place, name in names.items() if place in present}
    foreign.fill(model, _prefixed(arrays, "weight:"), names, case)
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


def _prefixed(arrays, prefix):
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


KINDS = {"convnet": convnet_attention}
