"""Spans and additive attention of a golden file; see `references`."""

import re

import keras
import numpy as np

from kanets import attention


def _adaptive_mask(case, arrays):
    """No layer: the mask of spans z, where that of the file is `mask`."""
    ramp = int(re.search(r"ramp(\d+)", case)[1])
    size = arrays["mask"].shape[-1]
    distance = np.arange(size - 1, -1, -1)  # the nearest comes last

    def call(z):
        return attention.span_mask(distance, (z * size)[:, None], ramp)

    return None, call


def _adaptive_seq_attention(case, arrays):
    def weight(name):
        return arrays[f"param:proj_{name}.weight"].T

    adaptive = bool(arrays["adapt_span_enabled"])
    loss = arrays["span_loss"] if adaptive else 0
    span = int(arrays["attn_span"])
    layer = attention.CausalSpanAttention(
        span,
        int(arrays["ramp"]),
        span="adaptive" if adaptive else "fixed",
        span_penalty=float(loss / (span * arrays["z"].mean())) if loss else 0.0,
        num_heads=int(arrays["nb_heads"]),
    )
    layer.build(arrays["query"].shape)
    for name, ours in (
        ("query", "query"),
        ("key", "key"),
        ("val", "value"),
        ("out", "output"),
    ):
        layer._maps[ours].kernel.assign(weight(name))
    if adaptive:
        layer.z.assign(arrays["z"])

    def call(query, key_value, key_pe):
        table = keras.ops.transpose(key_pe[0])
        scope = keras.StatelessScope([(layer.positions[0], table)])
        with scope:
            return layer(query, key=key_value)

    return layer, call


class _Shaw(keras.layers.Layer):
    """Dense attention with relative positions, without a last map."""

    def __init__(self, arrays):
        backend = keras.backend.backend()
        wide = backend == "tensorflow"  # where we multiply in float64
        super().__init__(dtype="float64" if wide else None)
        names = ("W_q", "W_k", "W_v", "rel_key", "rel_value")
        self.all = {
            name: self.add_weight(arrays[name].shape, name=name)
            for name in names
            if name in arrays
        }
        for name, variable in self.all.items():
            variable.assign(arrays[name])
        self.heads = int(arrays["num_heads"])
        self.clip = int(arrays["clip"])
        self.supports_masking = True
        self.causal = 0 if arrays["causal"] else None

    def call(self, x, mask=None):
        tables = [
            [attention.RelativePositions(self.all[name].value, -self.clip)]
            if name in self.all
            else None
            for name in ("rel_key", "rel_value")
        ]
        query, key, value = (
            lambda t, w=self.all[name]: keras.ops.matmul(t, w)
            for name in ("W_q", "W_k", "W_v")
        )
        return attention.adaptive_span_attention(
            x,
            self.heads,
            "rsqrt",
            query=query,
            key=key,
            value=value,
            relative_keys=tables[0],
            relative_values=tables[1],
            causal=self.causal,
            context=x,
            context_mask=mask,
        )


def _relative(case, arrays):
    if "rel_key" in arrays:
        layer = _Shaw(arrays)
        return layer, lambda x, mask=None: layer(x, mask=mask)
    return _segments(arrays)


def _segments(arrays):
    layers = []
    for number in range(1, int(arrays["num_layers"]) + 1):
        layer = attention.CausalSpanAttention(
            int(arrays["span"]),
            sees_itself=True,
            span="fixed",
            num_heads=int(arrays["num_heads"]),
        )
        layer.build(arrays["input"].shape)
        for letter, name in zip(
            "qkvo", ("query", "key", "value", "output"), strict=True
        ):
            kernel = arrays[f"layer{number}_W_{letter}"]
            layer._maps[name].kernel.assign(kernel)
        table = arrays[f"layer{number}_rel_key"]
        layer.positions[0].assign(table[::-1])  # the nearest comes last
        layers.append(layer)

    def call(input, memories=(None, None)):
        x = keras.ops.convert_to_tensor(input)
        for layer, memory in zip(layers, memories, strict=True):
            keys = x
            if memory is not None:
                memory = keras.ops.convert_to_tensor(memory)
                keys = keras.ops.concatenate([memory, x], axis=1)
            x = x + layer(x, key=keys)
        return x

    return layers, call


def _additive(case, arrays):
    layer = attention.AdditiveAttention(len(arrays["w"]))
    layer.build(arrays["c"].shape, arrays["y"].shape)
    layer.query_map.kernel.assign(arrays["W_c"])
    layer.key_map.kernel.assign(arrays["W_y"])
    layer.score.assign(arrays["w"])

    def call(c, y, mask=None):
        return layer(c, y, key_mask=mask)

    return layer, call


KINDS = {
    "adaptive_mask": _adaptive_mask,
    "adaptive_seq_attention": _adaptive_seq_attention,
    "relative": _relative,
    "additive": _additive,
}
