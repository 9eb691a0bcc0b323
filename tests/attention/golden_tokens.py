"""Token mixers of convolutional nets, with the weights of a golden case.

A builder takes a case's name and arrays, (B, C, H, W), `weight:<name>`,
`hyper:<name>`, and returns the layer, filled, and a function from the stored
input to what `output` holds. `layer.golden_names` says for each of its
variables by path what it is called in the file, and how an array of that is
turned into ours.
"""

import keras
import numpy as np

from kanets.attention import (
    CrossCovarianceAttention,
    EfficientAdditiveAttention,
    LinearAttention,
    MultiQueryAttention,
    NonLocalAttention,
    SeparableAttention,
    SingleHeadAttention,
    SingleHeadModulation,
    SpatialReductionAttention,
)


def convolution(array):
    """[out, in, height, width] -> [height, width, in, out]."""
    return array.transpose(2, 3, 1, 0)


def depthwise(array):
    """[channels, 1, height, width] -> [height, width, channels, 1]."""
    return array.transpose(2, 3, 0, 1)


def linear(array):
    """[out, in] -> [1, 1, in, out], as ours are 1x1 convolutions."""
    return array.T[None, None]


def same(array):
    return array


def flat(array):
    return array.reshape(-1)


def names(kind, places):
    """What the variables of our layers are called there.

    Args:
        kind: what turns a kernel into ours, or "norm".
        places: dict from our layers to their prefixes.

    Returns:
        Dict from our variables, such as "query/kernel", to pairs of a name and
        a function.
    """
    parts = {"kernel": ("weight", kind), "bias": ("bias", same)}
    if kind == "norm":
        theirs = ("weight", "bias", "running_mean", "running_var")
        ours = ("gamma", "beta", "moving_mean", "moving_variance")
        parts = {o: (t, same) for o, t in zip(ours, theirs, strict=True)}
    return {
        f"{place}/{part}": (f"{prefix}.{name}", function)
        for place, prefix in places.items()
        for part, (name, function) in parts.items()
    }


def filled(layer, arrays, table):
    """A layer, built and filled: what `BUILDERS` return.

    Raises:
        ValueError: weights of the case that are of none of the variables.
    """
    shape = np.moveaxis(arrays["input"], 1, -1).shape
    layer.build((None, *shape[1:]))
    left = set(of_kind(arrays, "weight"))
    layer.golden_names = {}
    for variable in layer.weights:
        place = variable.path.removeprefix(f"{layer.name}/")
        name, function = layer.golden_names[variable.path] = table[place]
        variable.assign(function(arrays[f"weight:{name}"]))
        left.remove(name)
    if left:
        raise ValueError(f"No variable takes {sorted(left)}.")

    def call(input):
        x = keras.ops.convert_to_tensor(input)
        output = layer(keras.ops.transpose(x, (0, 2, 3, 1)), training=False)
        return keras.ops.transpose(output, (0, 3, 1, 2))

    return layer, call


def of_kind(arrays, kind):
    """The arrays `<kind>:<name>`, by name, but for counts of steps."""
    return {
        name.removeprefix(f"{kind}:"): array
        for name, array in arrays.items()
        if name.startswith(f"{kind}:") and "num_batches" not in name
    }


def multi_query(case, arrays):
    weights, hyper = of_kind(arrays, "weight"), of_kind(arrays, "hyper")
    key_dim = len(weights["key.proj.weight"])
    strides = np.unique(hyper.get("query_strides", 1))
    layer = MultiQueryAttention(
        len(weights["query.proj.weight"]) // key_dim,
        key_dim,
        len(weights["value.proj.weight"]),
        key_stride=int(hyper.get("kv_stride", 1)),
        query_stride=int(strides.item()),
        kernel_size=int(hyper.get("dw_kernel_size", 3)),
        padding=str(hyper.get("padding", "")) or "symmetric",
        scale="rsqrt",
        use_bias="query.proj.bias" in weights,
    )
    parts = ("query", "key", "value", "output")
    return filled(
        layer,
        arrays,
        {
            **names(convolution, {p: f"{p}.proj" for p in parts}),
            **names(
                depthwise, {f"{p}_depthwise": f"{p}.down_conv" for p in parts}
            ),
            **names("norm", {f"{p}_norm": f"{p}.norm" for p in parts}),
        },
    )


def linear_attention(case, arrays):
    weights = of_kind(arrays, "weight")
    size = int(arrays["hyper:dim"])
    scales = range(sum(name.endswith(".0.weight") for name in weights))
    layer = LinearAttention(
        len(weights["qkv.conv.weight"]) // (3 * size),
        size,
        [weights[f"aggreg.{i}.0.weight"].shape[-1] for i in scales],
        len(weights["proj.conv.weight"]),
    )
    maps = {"maps": "qkv.conv", "output": "proj.conv"}
    maps |= {f"groups_{i}": f"aggreg.{i}.1" for i in scales}
    return filled(
        layer,
        arrays,
        {
            **names(convolution, maps),
            **names(
                depthwise, {f"depthwise_{i}": f"aggreg.{i}.0" for i in scales}
            ),
            **names("norm", {"output_norm": "proj.norm"}),
        },
    )


def single_head(case, arrays):
    weights = of_kind(arrays, "weight")
    partial = len(weights["pre_norm.weight"])
    width = len(weights["qkv.c.weight"])
    layer = SingleHeadAttention(partial, (width - partial) // 2, scale="rsqrt")
    return filled(
        layer,
        arrays,
        {
            **names(convolution, {"maps": "qkv.c", "output": "proj.1.c"}),
            **names(
                "norm",
                {
                    "norm": "pre_norm",
                    "maps_norm": "qkv.bn",
                    "output_norm": "proj.1.bn",
                },
            ),
        },
    )


def single_head_modulation(case, arrays):
    weights = of_kind(arrays, "weight")
    layer = SingleHeadModulation(
        len(weights["q.c.weight"]),
        len(weights["v_gate.c.weight"]) // 2,
        scale="rsqrt",
    )
    parts = {"query": "q", "key": "k", "value_gate": "v_gate"}
    parts["output"] = "proj"
    return filled(
        layer,
        arrays,
        {
            **names(convolution, {o: f"{t}.c" for o, t in parts.items()}),
            **names("norm", {f"{o}_norm": f"{t}.bn" for o, t in parts.items()}),
        },
    )


def separable(case, arrays):
    layer = SeparableAttention(
        patch_size=int(arrays["hyper:patch_size"]),
        use_bias="weight:qkv_proj.bias" in arrays,
    )
    maps = {"maps": "qkv_proj", "output": "out_proj"}
    return filled(layer, arrays, names(convolution, maps))


def efficient_additive(case, arrays):
    heads = int(arrays["hyper:num_heads"])
    layer = EfficientAdditiveAttention(
        heads,
        len(arrays["weight:to_query.weight"]) // heads,
        len(arrays["weight:final.weight"]),
    )
    maps = {"query": "to_query", "key": "to_key"}
    maps |= {"mixing": "proj", "output": "final"}
    table = {**names(linear, maps), "weight": ("w_g", same)}
    return filled(layer, arrays, table)


def spatial_reduction(case, arrays):
    weights, hyper = of_kind(arrays, "weight"), of_kind(arrays, "hyper")
    stride = 1
    if "sr.weight" in weights:
        stride = weights["sr.weight"].shape[-1]
    layer = SpatialReductionAttention(
        int(hyper.get("num_heads", 8)),
        stride,
        7 if bool(hyper.get("linear_attn", False)) else None,
        scale="rsqrt",
        use_bias="q.bias" in weights,
    )
    maps = {"query": "q", "key_value": "kv", "output": "proj"}
    return filled(
        layer,
        arrays,
        {
            **names(linear, maps),
            **names(convolution, {"reduction": "sr"}),
            **names("norm", {"norm": "norm"}),
        },
    )


def cross_covariance(case, arrays):
    layer = CrossCovarianceAttention(
        len(arrays["weight:temperature"]),
        use_bias="weight:qkv.bias" in arrays,
    )
    table = names(linear, {"maps": "qkv", "output": "proj"})
    table["temperature"] = ("temperature", flat)
    return filled(layer, arrays, table)


def non_local(case, arrays):
    weights, hyper = of_kind(arrays, "weight"), of_kind(arrays, "hyper")
    similarity = str(hyper["mode"])
    # There the factor is of this form alone.
    scaled = bool(hyper["use_scale"]) and similarity == "embedded_gaussian"
    layer = NonLocalAttention(
        similarity=similarity,
        reduction=int(hyper["reduction"]),
        pool_size=2 if bool(hyper["sub_sample"]) else 1,
        residual=True,
        scale="rsqrt" if scaled else None,
    )
    # A map that a pool follows is the first of two.
    parts = {"value": "g", "query": "theta", "key": "phi"}
    maps = {
        ours: theirs if f"{theirs}.conv.weight" in weights else f"{theirs}.0"
        for ours, theirs in parts.items()
    }
    maps["output"] = "conv_out"
    table = names(convolution, {o: f"{t}.conv" for o, t in maps.items()})
    table["pair"] = ("concat_project.conv.weight", _pair)
    return filled(layer, arrays, table)


def _pair(array):
    return array.reshape(2, -1)


BUILDERS = {
    "mqa": multi_query,
    "lite_mla": linear_attention,
    "single_head_partial": single_head,
    "separable": separable,
    "efficient_additive": efficient_additive,
    "spatial_reduction": spatial_reduction,
    "cross_covariance": cross_covariance,
    "single_head_modulation": single_head_modulation,
    "non_local": non_local,
}
