"""Multi-query attention of a picture: many heads of queries, one of keys.

Shazeer, "Fast Transformer Decoding: One Write-Head is All You Need", 2019: all
heads look at the same keys and values. MobileNetV4 has it on maps, where keys
and values may be of fewer cells: a depthwise convolution that strides.

Letters: B batch, H W grid, C channels, N heads, D and E sizes of a head's keys
and values, h w grid of the keys.
"""

import keras
import numpy as np
from keras import ops

from kanets.attention.base import fresh
from kanets.attention.checks import (
    check_choice,
    check_divides,
    check_odd,
    check_positive,
    check_positive_or_none,
    logit_scale,
)
from kanets.attention.core import attend
from kanets.attention.grid import average_pool, cells, flatten, spread_by
from kanets.attention.picture import EPSILON, MappedAttention

PADDINGS = ("symmetric", "same")


def multi_query_attention(query, key, value, num_heads=1, scale=None):
    """Softmax attention of several heads to one set of keys.

    Args:
        query: tensor (B, H, W, N·D), head by head.
        key: tensor (B, h, w, D).
        value: tensor (B, h, w, E).
        num_heads: N.
        scale: factor of the logits; None is none, "rsqrt" is 1/sqrt(D).

    Returns:
        Output (B, H, W, N·E) in the dtype of `value`, and the weights
        (B, N, H·W, h·w) in float32.

    Raises:
        ValueError: queries that are not N times as wide as keys; a `scale`
            that is none.

    Cost: O(H·W·h·w·N·(D + E)) time, O(N·H·W·h·w) memory.

    References: Shazeer, https://arxiv.org/abs/1911.02150, section 3.
    """
    head_dim = key.shape[-1]
    if query.shape[-1] != num_heads * head_dim:
        raise ValueError(
            "query must have num_heads times the channels of key. Received: "
            f"query.shape={tuple(query.shape)}, key.shape={tuple(key.shape)}, "
            f"num_heads={num_heads}"
        )
    _, height, width, _ = ops.shape(query)
    # A head is a query more, as all look at the same keys: nothing is moved.
    queries = ops.reshape(query, (-1, height * width * num_heads, head_dim))
    output, weights = attend(
        queries,
        flatten(key),
        flatten(value),
        scale=logit_scale(scale, head_dim),
    )
    width_out = num_heads * value.shape[-1]
    output = ops.reshape(output, (-1, height, width, width_out))
    keys = cells(ops.shape(key)[1:-1])
    weights = ops.reshape(weights, (-1, height * width, num_heads, keys))
    return output, ops.transpose(weights, (0, 2, 1, 3))


@keras.saving.register_keras_serializable(package="kanets")
class MultiQueryAttention(MappedAttention):
    """Attention of N heads of queries to one of keys and values.

        Y = o(softmax(q(X) k(X)ᵀ) v(X))

    With a `key_stride` k and v are of a depthwise convolution that strides,
    batch-normalised, each its own; with a `query_stride` q is of average
    pools, batch-normalised, and what is found is enlarged bilinearly.

    Args:
        num_heads: N.
        key_dim: D, channels of a head's queries and keys; None is C / N.
        value_dim: E, channels of a head's values; None is D.
        key_stride: of the convolutions before keys and values; 1 is without.
        query_stride: side of the windows that queries are averaged over.
        kernel_size: side of these convolutions, odd.
        padding: of these: "symmetric", as in PyTorch's nets, (kernel_size +
            key_stride - 2) // 2 on each side; or "same".
        scale: factor of the logits; None is none, "rsqrt" is 1/sqrt(D), or a
            number.
        use_bias: whether the four maps have a bias.
        kernel_initializer: of all kernels.
        output_initializer: of the kernel of o; None is `kernel_initializer`.

    Call arguments:
        query: float tensor (B, H, W, C); H and W may be None.
        return_attention_scores: also return the weights, in float32
            (B, N, queries, keys).

    Returns:
        Tensor (B, H, W, C), and the weights on request.

    Raises:
        ValueError: an argument out of its range; an input that is no picture
            of known channels; a mask.

    Cost: O((H·W)²·N·D / key_stride²) time, O(N·(H·W)² / key_stride²) memory,
    both divided by query_stride², too.

    Example:

    >>> layer = MultiQueryAttention(num_heads=4, key_dim=8, key_stride=2)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: Shazeer, https://arxiv.org/abs/1911.02150; Qin et al.,
    "MobileNetV4", https://arxiv.org/abs/2404.10518, section 5.
    """

    def __init__(
        self,
        num_heads=1,
        key_dim=None,
        value_dim=None,
        key_stride=1,
        query_stride=1,
        kernel_size=3,
        padding="symmetric",
        scale=None,
        use_bias=False,
        **kwargs,
    ):
        super().__init__(num_heads, scale, use_bias, **kwargs)
        self.key_stride, self.query_stride = check_positive(
            key_stride=key_stride, query_stride=query_stride
        )
        self.key_dim, self.value_dim = check_positive_or_none(
            key_dim=key_dim, value_dim=value_dim
        )
        check_choice(PADDINGS, padding=padding)
        self.kernel_size = check_odd(kernel_size=kernel_size)
        self.padding = padding

    def build_maps(self, channels):
        key_dim = self.key_dim
        if key_dim is None:
            check_divides(self.num_heads, channels)
            key_dim = channels // self.num_heads
        value_dim = key_dim if self.value_dim is None else self.value_dim
        if self.query_stride > 1:
            self.query_norm = self._norm("query", channels)
        self.query = self.linear_map(
            "query", channels, self.num_heads * key_dim
        )
        self.key = self._strided_map("key", channels, key_dim)
        self.value = self._strided_map("value", channels, value_dim)
        self.output_map = self.linear_map(
            "output", self.num_heads * value_dim, channels
        )

    def _strided_map(self, name, channels, filters):
        """The layers from the input to keys or values, in order."""
        layers = []
        if self.key_stride > 1:
            depthwise = self.new_layer(
                keras.layers.DepthwiseConv2D,
                channels,
                f"{name}_depthwise",
                kernel_size=self.kernel_size,
                strides=self.key_stride,
                padding="same" if self.padding == "same" else "valid",
                data_format="channels_last",
                use_bias=False,
                depthwise_initializer=fresh(self.kernel_initializer),
            )
            layers += [depthwise, self._norm(name, channels)]
        return [*layers, self.linear_map(name, channels, filters)]

    def _norm(self, name, channels):
        return self.new_layer(
            keras.layers.BatchNormalization,
            channels,
            f"{name}_norm",
            epsilon=EPSILON,
        )

    def attend(self, inputs, mask, training, return_attention_scores):
        self.check_inputs(inputs, mask)
        queries = inputs
        if self.query_stride > 1:
            queries = average_pool(inputs, self.query_stride)
            queries = self.query_norm(queries, training=training)
        found, weights = multi_query_attention(
            self.query(queries),
            self._keys(self.key, inputs, training),
            self._keys(self.value, inputs, training),
            self.num_heads,
            self.scale,
        )
        if self.query_stride > 1:
            found = _enlarged(found, self.query_stride, inputs)
        output = self.output_map(found)
        return (output, weights) if return_attention_scores else output

    def _keys(self, layers, x, training):
        *strided, linear = layers
        if strided:
            depthwise, norm = strided
            if self.padding == "symmetric":
                sides = (self._keys_along(1)[1],) * 2
                x = ops.pad(x, [(0, 0), sides, sides, (0, 0)])
            x = norm(depthwise(x), training=training)
        return linear(x)

    def _keys_along(self, size):
        """How many keys an axis has, and how many zeros stand before it."""
        stride, side = self.key_stride, self.kernel_size
        if stride == 1:
            return size, 0
        if self.padding == "same":
            keys = -(-size // stride)
            return keys, max(0, (keys - 1) * stride + side - size) // 2
        before = (side + stride - 2) // 2
        return (size + 2 * before - side) // stride + 1, before

    def _token_counts(self, grid):
        queries, keys = [], []
        for size in grid:
            known = size is not None
            queries.append(-(-size // self.query_stride) if known else None)
            keys.append(self._keys_along(size)[0] if known else None)
        return cells(queries), cells(keys)

    def _maps_at(self, scores, cell, grid):
        stride = self.query_stride
        row, column = (
            (place + _padded_before(size, stride)) // stride
            for place, size in zip(cell, grid, strict=True)
        )
        columns = -(-grid[1] // self.query_stride)
        keys = scores[:, :, row * columns + column]
        return spread_by(keys, *(self._key_shares(size) for size in grid))

    def _key_shares(self, size):
        """Of an axis's keys their shares of its cells: those in a window."""
        keys, before = self._keys_along(size)
        first = np.arange(keys)[:, None] * self.key_stride - before
        side = self.kernel_size if self.key_stride > 1 else 1
        # What sees zeros alone stands for the cell that is next to it.
        first, last = (
            np.clip(place, 0, size - 1) for place in (first, first + side - 1)
        )
        places = np.arange(size)
        inside = (places >= first) & (places <= last)
        return inside / inside.sum(1, keepdims=True)

    def get_config(self):
        return {
            **super().get_config(),
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "key_stride": self.key_stride,
            "query_stride": self.query_stride,
            "kernel_size": self.kernel_size,
            "padding": self.padding,
        }


def _enlarged(x, factor, like):
    """Bilinearly, with half-pixel centres, cut to where another map was pooled.

    Along an axis each cell becomes `factor` cells, which lie between it and
    its neighbours by known shares.
    """
    for axis in (1, 2):
        edge = [slice(None)] * axis
        before = ops.concatenate(
            [x[(*edge, slice(0, 1))], x[(*edge, slice(0, -1))]], axis
        )
        after = ops.concatenate(
            [x[(*edge, slice(1, None))], x[(*edge, slice(-1, None))]], axis
        )
        parts = []
        for number in range(factor):
            place = (number + 0.5) / factor - 0.5
            other = before if place < 0 else after
            parts.append((1 - abs(place)) * x + abs(place) * other)
        size = ops.shape(x)
        x = ops.stack(parts, axis + 1)
        x = ops.reshape(
            x, (-1, *size[1:axis], size[axis] * factor, *size[axis + 1 :])
        )
    _, height, width, _ = ops.shape(like)
    top, left = (_padded_before(size, factor) for size in (height, width))
    return x[:, top : top + height, left : left + width]


def _padded_before(size, stride):
    """The cells that `average_pool` puts before an axis, half of all."""
    return -size % stride // 2
