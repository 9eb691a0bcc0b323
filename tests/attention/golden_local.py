"""Local attention of ours, as cases of golden files describe it."""

import numpy as np
from keras import ops

from kanets import attention


def natten(case, arrays):
    """An operator of NATTEN, or its layer."""
    axes = {
        "kernel_size": arrays["kernel_size"],
        "dilation": arrays["dilation"],
        "stride": arrays["stride"],
        "causal": arrays["is_causal"].astype(bool),
    }
    if "input" not in arrays:

        def call(query, key, value, additional_key=None, additional_value=None):
            return attention.neighborhood_attention(
                query,
                key,
                value,
                scale=float(arrays["scale"]),
                extra_key=additional_key,
                extra_value=additional_value,
                **axes,
            )

        return None, call
    layer = attention.NeighborhoodAttention(
        num_heads=int(arrays["num_heads"]), use_bias=True, **axes
    )
    layer.build(arrays["input"].shape)
    fill(layer, natten_maps(arrays))
    return layer, lambda input: layer(input)


def natten_maps(arrays, prefix=""):
    """Kernels and biases, or with "grad_" their gradients, by our names."""
    maps = {}
    for end, kind in (("weight", "kernel"), ("bias", "bias")):
        parts = np.split(arrays[f"{prefix}qkv.{end}"], 3)
        parts.append(arrays[f"{prefix}proj.{end}"])
        for name, part in zip(
            ("query", "key", "value", "output"), parts, strict=True
        ):
            maps[f"{name}/{kind}"] = part.T
    return maps


def longformer(case, arrays):
    """`LongformerSelfAttention` of transformers."""
    layer = attention.WindowAttention(
        2 * int(arrays["one_sided_window"]) + 1,
        num_heads=int(arrays["num_heads"]),
        num_global=most(arrays["mask"] == 2),
        projections="qkv",
        use_bias=True,
    )
    layer.build(arrays["hidden_states"].shape)
    fill(layer, longformer_maps(arrays))
    return layer, lambda hidden_states, mask, **more: layer(
        hidden_states, mask=mask, **more
    )


def longformer_maps(arrays, prefix=""):
    return {
        name.removeprefix(prefix)
        .replace(".weight", "/kernel")
        .replace(".bias", "/bias"): array.T
        for name, array in arrays.items()
        if name.startswith(prefix)
        and name.endswith((".weight", ".bias"))
        and name.startswith("grad_") == bool(prefix)
    }


def windows(case, arrays):
    """Loops in float64: an operator, or a layer where there is an input."""
    rule = {
        "window_size": arrays["kernel_size"],
        "dilation": arrays["dilation_per_head"],
        "causal": bool(arrays["causal"]),
    }
    if "input" not in arrays:

        def call(
            query,
            key,
            value,
            mask=None,
            return_attention_scores=False,
            **extra,
        ):
            return attention.window_attention(
                query,
                key,
                value,
                mask=mask,
                extra_key=extra.get("extra_key"),
                extra_value=extra.get("extra_value"),
                return_attention_scores=return_attention_scores,
                **rule,
            )

        return None, call
    layer = attention.WindowAttention(
        num_heads=len(arrays["dilation_per_head"]),
        num_global=most(arrays["global"]),
        projections="qkv",
        use_bias=True,
        dtype=arrays["input"].dtype.name,
        **rule,
    )
    layer.build(arrays["input"].shape)
    fill(layer, windows_maps(arrays))

    def call(input, mask, return_attention_scores=False, **more):
        found = layer(
            input,
            mask=mask * (1 + more["global"]),
            return_attention_scores=return_attention_scores,
        )
        found, *weights = found if return_attention_scores else (found,)
        found = ops.reshape(found, arrays["output"].shape)
        return (found, *weights) if return_attention_scores else found

    return layer, call


def windows_maps(arrays, prefix=""):
    return {
        "/".join(name.removeprefix(prefix).rsplit("_", 1)): array
        for name, array in arrays.items()
        if name.startswith(prefix)
        and name.endswith(("_kernel", "_bias"))
        and name.startswith("grad_") == bool(prefix)
    }


def most(flags):
    """The largest number of them in an item."""
    return int(flags.reshape(len(flags), -1).sum(1).max())


def fill(layer, maps):
    for variable in layer.weights:
        variable.assign(maps[name_of(variable)])


def name_of(variable):
    """Such as query/kernel."""
    return "/".join(variable.path.rsplit("/", 2)[1:])


KINDS = {"natten": natten, "longformer": longformer, "windows": windows}
MAPS = {
    "natten": natten_maps,
    "longformer_hf": longformer_maps,
    "windows_numpy": windows_maps,
}
