"""What is put into the body: attention over rows and columns, and controls.

    insert = inserter("kao_qkv")
    net = efficientnet_lite0((96, 96, 3), classes=10, insert=insert)

Each form starts closed: its last projection is zero, so that the outputs of
the body do not change (x + 0, x * (1 + 0) or x * 2 sigmoid(0)). Each but
"none" adds about 256 C parameters to a block of C channels: four C x 64 maps
of attention are as many as two C x 128 maps of a control.

Letters: t = C̄, the H + W means of rows and columns of x; S(·), their outer
sum over the grid; W, maps of channels; Z, the last one, zero at the start.

    none               x
    mlp                x + Z relu6(W x)
    mlp_dw             x + Z relu6(W (x + depthwise 3x3 x))
    se                 x · 2 sigmoid(Z relu(W mean x))
    kao_qkv            x + S(Z attention(Wt, Wt, Wt))
    kao_kv             x + Z attention(Wx, Wt, Wt)
    kao_axis           kao_qkv where rows attend to rows and columns to
                       columns, with a relative position bias
    kao_norm           kao_qkv of batch-normalised t
    kao_relu6          x + S(Z relu6(attention(Wt, Wt, Wt)))
    kao_mlp            x + S(Z [attention(Wt, Wt, Wt), relu6(W t)])
    kao_self           x + S(Z relu6(Wt + attention(Wt, Wt, Wt))), the first
                       W that of the values
    kao_self_norm      the same of batch-normalised t
    kao_gate           x · (1 + S(Z relu6(W t)))
    means_mlp          x + S(Z relu6(W t)); means_mlp_last, in the last block of
                       each stage alone
    means_conv         x + S(Z relu6(u + conv5 u)), u = W t, along each axis
    cross_mlp          x + Z relu6(W x + S(W t))

Where a name ends in "_expanded", as of `kao_self`, x are the 6 C channels of
the expansion, before the depthwise convolution, and the maps narrower.
"""

import keras
from keras import layers, ops

from kanets import ops as kanets_ops

HEADS, HEAD_DIM = 4, 16
HIDDEN = 128  # of two maps; of three, 85: 3 · 85 C = 255 C
HIDDEN_OF_THREE = 85
HIDDEN_EXPANDED = 21  # of two maps of 6 C channels: 12 · 21 C = 252 C
HEADS_EXPANDED, HEAD_DIM_EXPANDED = 2, 5  # four maps: 24 · 10 C = 240 C
VALUES_EXPANDED, KEY_DIM_EXPANDED = 16, 2  # 12 · 16 C + 12 · 2 · 2 C = 240 C


def inserter(form):
    """`insert=` of `efficientnet_lite0` for a form, None for "none"."""
    build, chosen = FORMS[form]
    if build is None:
        return None

    def insert(x, block, place):
        if block.stride != 1 or block.channels < 24:
            return x
        if place != ("expanded" if chosen == "expanded" else "output"):
            return x
        if chosen == "last" and not block.is_last:
            return x
        return build(x, Maps(f"new_{block.index}_"))

    return insert


class Maps:
    """Makes the layers of one place, under names that begin with "new_"."""

    def __init__(self, prefix):
        self.prefix = prefix

    def dense(self, units, name, zero=False, use_bias=True):
        """A map of tokens, (tokens, C) -> (tokens, units)."""
        return layers.Dense(
            units,
            use_bias=use_bias,
            kernel_initializer="zeros" if zero else "glorot_uniform",
            name=f"{self.prefix}{name}",
        )

    def conv(self, units, name, zero=False, use_bias=True):
        """The same map at each position, (B, H, W, C) -> (B, H, W, units)."""
        return layers.Conv2D(
            units,
            1,
            use_bias=use_bias,
            kernel_initializer="zeros" if zero else "glorot_uniform",
            name=f"{self.prefix}{name}",
        )

    def name(self, name):
        return f"{self.prefix}{name}"


def means(x):
    """C̄ (B, H + W, C)."""
    return ops.concatenate(kanets_ops.axis_means(x), axis=1)


def spread(tokens, x):
    """S: tokens (B, H + W, C') -> (B, H, W, C')."""
    return kanets_ops.outer_sum(split(tokens, x))


def split(tokens, x):
    height = x.shape[1]
    return [tokens[:, :height], tokens[:, height:]]


def apply(layer, tokens):
    """A map of (B, T, C) as one product of two matrices."""
    _, length, channels = tokens.shape
    result = layer(ops.reshape(tokens, (-1, channels)))
    return ops.reshape(result, (-1, length, result.shape[-1]))


def mlp(x, new, hidden=HIDDEN):
    hidden = ops.relu6(new.conv(hidden, "hidden")(x))
    return x + new.conv(x.shape[-1], "last", zero=True)(hidden)


def mlp_expanded(x, new):
    return mlp(x, new, HIDDEN_EXPANDED)


def mlp_dw(x, new):
    seen = x + layers.DepthwiseConv2D(
        3, padding="same", use_bias=False, name=new.name("depthwise")
    )(x)
    hidden = ops.relu6(new.conv(HIDDEN, "hidden")(seen))
    return x + new.conv(x.shape[-1], "last", zero=True)(hidden)


def se(x, new):
    mean = ops.mean(x, axis=(1, 2))
    hidden = ops.relu(new.dense(HIDDEN, "hidden")(mean))
    gate = new.dense(x.shape[-1], "last", zero=True)(hidden)
    return x * (2.0 * ops.sigmoid(gate))[:, None, None]


def kao_qkv(x, new):
    return x + kanets_ops.kao_qkv(x, **_attention_maps(x, new))


def kao_kv(x, new):
    return x + kanets_ops.kao_kv(x, **_attention_maps(x, new))


def _attention_maps(x, new):
    width = HEADS * HEAD_DIM
    return {
        "num_heads": HEADS,
        "scale": "rsqrt",
        "query": new.dense(width, "query", use_bias=False),
        "key": new.dense(width, "key", use_bias=False),
        "value": new.dense(width, "value", use_bias=False),
        "output": new.dense(x.shape[-1], "last", zero=True),
    }


def kao_axis(x, new):
    maps = _projected(means(x), new, HEADS * HEAD_DIM)
    found = []
    axes = zip("hw", *(split(tokens, x) for tokens in maps), strict=True)
    for axis, *along in axes:
        query, key, value = (_heads(tokens) for tokens in along)
        logits = ops.matmul(query, ops.swapaxes(key, -1, -2))
        bias = RelativePositionBias(name=new.name(f"bias_{axis}"))
        weights = ops.softmax(bias(logits))
        result = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        found.append(ops.reshape(result, (-1, *along[0].shape[1:])))
    tokens = ops.concatenate(found, axis=1)
    last = new.dense(x.shape[-1], "last", zero=True)
    return x + spread(apply(last, tokens), x)


def _heads(tokens):
    """(B, T, N·D) -> (B, N, T, D)."""
    shape = (-1, tokens.shape[1], HEADS, HEAD_DIM)
    return ops.transpose(ops.reshape(tokens, shape), (0, 2, 1, 3))


@keras.saving.register_keras_serializable(package="kanets_benchmarks")
class RelativePositionBias(layers.Layer):
    """Logits (B, N, T, T) / sqrt(D) + b[n, i - j]."""

    def build(self, input_shape):
        _, heads, length, _ = input_shape
        self.table = self.add_weight(
            shape=(heads, 2 * length - 1), initializer="zeros", name="table"
        )

    def call(self, logits):
        length = logits.shape[-1]
        i = ops.arange(length)
        bias = ops.take(self.table, i[:, None] - i + length - 1, axis=1)
        return logits * HEAD_DIM**-0.5 + bias


def kao_norm(x, new, num_heads=HEADS, head_dim=HEAD_DIM):
    norm = layers.BatchNormalization(momentum=0.9, name=new.name("norm"))
    attended = _attended(norm(means(x)), new, num_heads, head_dim)
    last = new.dense(x.shape[-1], "last", zero=True)
    return x + spread(apply(last, attended), x)


def kao_norm_expanded(x, new):
    return kao_norm(x, new, HEADS_EXPANDED, HEAD_DIM_EXPANDED)


def kao_self_expanded(x, new):
    return _self(x, new, means(x))


def kao_self_norm_expanded(x, new):
    norm = layers.BatchNormalization(momentum=0.9, name=new.name("norm"))
    return _self(x, new, norm(means(x)))


def _self(x, new, tokens):
    """A token is asked itself, too: attention to nearly all is their mean."""
    query, key = (
        apply(
            new.dense(HEADS_EXPANDED * KEY_DIM_EXPANDED, name, use_bias=False),
            tokens,
        )
        for name in ("query", "key")
    )
    value = apply(new.dense(VALUES_EXPANDED, "value"), tokens)
    attended, _ = kanets_ops.attention(
        query, key, value, HEADS_EXPANDED, "rsqrt"
    )
    last = new.dense(x.shape[-1], "last", zero=True)
    return x + spread(apply(last, ops.relu6(value + attended)), x)


def kao_relu6(x, new):
    attended = ops.relu6(_attended(means(x), new))
    last = new.dense(x.shape[-1], "last", zero=True)
    return x + spread(apply(last, attended), x)


def _attended(tokens, new, num_heads=HEADS, head_dim=HEAD_DIM):
    maps = _projected(tokens, new, num_heads * head_dim)
    return kanets_ops.attention(*maps, num_heads, "rsqrt")[0]


def _projected(tokens, new, width):
    """Queries, keys and values (B, T, width)."""
    return [
        apply(new.dense(width, name, use_bias=False), tokens)
        for name in ("query", "key", "value")
    ]


def kao_mlp(x, new, hidden=64, head_dim=8):
    tokens = means(x)
    maps = _projected(tokens, new, HEADS * head_dim)
    attended, _ = kanets_ops.attention(*maps, HEADS, "rsqrt")
    mapped = ops.relu6(apply(new.dense(hidden, "hidden"), tokens))
    both = ops.concatenate([attended, mapped], axis=-1)
    last = new.dense(x.shape[-1], "last", zero=True)
    return x + spread(apply(last, both), x)


def _mapped_means(x, new, hidden=HIDDEN):
    tokens = ops.relu6(apply(new.dense(hidden, "hidden"), means(x)))
    last = new.dense(x.shape[-1], "last", zero=True)
    return spread(apply(last, tokens), x)


def kao_gate(x, new):
    return x * (1.0 + _mapped_means(x, new))


def means_mlp(x, new):
    return x + _mapped_means(x, new)


def means_mlp_expanded(x, new):
    return x + _mapped_means(x, new, HIDDEN_EXPANDED)


def means_conv(x, new):
    tokens = apply(new.dense(HIDDEN, "hidden"), means(x))
    found = [
        part
        + layers.DepthwiseConv1D(
            5, padding="same", use_bias=False, name=new.name(f"conv_{axis}")
        )(part)
        for axis, part in zip("hw", split(tokens, x), strict=True)
    ]
    tokens = ops.relu6(ops.concatenate(found, axis=1))
    last = new.dense(x.shape[-1], "last", zero=True)
    return x + spread(apply(last, tokens), x)


def cross_mlp(x, new):
    hidden = HIDDEN_OF_THREE
    seen = apply(new.dense(hidden, "tokens", use_bias=False), means(x))
    hidden = ops.relu6(new.conv(hidden, "hidden")(x) + spread(seen, x))
    return x + new.conv(x.shape[-1], "last", zero=True)(hidden)


FORMS = {  # name: (function, place)
    "none": (None, None),
    "mlp": (mlp, "stride 1"),
    "mlp_expanded": (mlp_expanded, "expanded"),
    "mlp_dw": (mlp_dw, "stride 1"),
    "se": (se, "stride 1"),
    "kao_qkv": (kao_qkv, "stride 1"),
    "kao_kv": (kao_kv, "stride 1"),
    "kao_axis": (kao_axis, "stride 1"),
    "kao_norm": (kao_norm, "stride 1"),
    "kao_norm_expanded": (kao_norm_expanded, "expanded"),
    "kao_self_expanded": (kao_self_expanded, "expanded"),
    "kao_self_norm_expanded": (kao_self_norm_expanded, "expanded"),
    "kao_relu6": (kao_relu6, "stride 1"),
    "kao_mlp": (kao_mlp, "stride 1"),
    "kao_gate": (kao_gate, "stride 1"),
    "means_mlp": (means_mlp, "stride 1"),
    "means_mlp_last": (means_mlp, "last"),
    "means_mlp_expanded": (means_mlp_expanded, "expanded"),
    "means_conv": (means_conv, "stride 1"),
    "cross_mlp": (cross_mlp, "stride 1"),
}
