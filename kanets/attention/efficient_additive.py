"""Efficient additive attention: one global query, which keys are measured by.

Shaker, Maaz, Rasheed, Khan, Yang and Khan, "SwiftFormer: Efficient Additive
Attention for Transformer-based Real-time Mobile Vision Applications", ICCV
2023.
A learned vector weighs the queries, their weighted sum multiplies each key; no
softmax, and no product of queries with keys.

Letters: B batch, H W grid, C channels, N heads, D size of a head, F = N·D
features, T tokens H·W.
"""

import keras
from keras import ops

from kanets.attention.base import fresh
from kanets.attention.checks import (
    check_positive_or_none,
)
from kanets.attention.core import unit_length
from kanets.attention.grid import flatten, unflatten
from kanets.attention.picture import MappedAttention


def efficient_additive_attention(query, key, weight):
    """Keys times a weighted sum of queries.

        q, k = Q / |Q|, K / |K| of each token
        a = q w / |q w|, the norm over the tokens
        Y = k · Σ a q

    Args:
        query, key: tensors (B, T, F).
        weight: w, tensor (F,).

    Returns:
        Y (B, T, F) in the dtype of `key`, q (B, T, F) and a (B, T), computed
        in float32; a may be negative, and its squares are of sum 1.

    Cost: O(T·F) time and memory.

    References: https://arxiv.org/abs/2303.15446, section 3.2.
    """
    query, unit_key = unit_length(query, -1), unit_length(key, -1)
    weight = ops.cast(weight, query.dtype)
    weights = unit_length(ops.sum(query * weight, axis=-1), 1)
    # Not weights[..., None], which LiteRT refuses where sizes are open.
    weighted = ops.expand_dims(weights, -1) * query
    total = ops.sum(weighted, axis=1, keepdims=True)
    return ops.cast(unit_key * total, key.dtype), query, weights


@keras.saving.register_keras_serializable(package="kanets")
class EfficientAdditiveAttention(MappedAttention):
    """Efficient additive attention of a picture.

        Y = o(p(A) + q),  A, q = efficient_additive_attention(q(X), k(X), w)

    Args:
        num_heads: N; heads are features more, as lengths and weights are of
            all of them.
        key_dim: D; None is C.
        output_channels: of the output; None is C.
        scale: of no effect, as a factor of all weights cancels.
        use_bias: whether the four maps have a bias.
        kernel_initializer: of all kernels.
        output_initializer: of the kernel of o; None is `kernel_initializer`.

    Call arguments:
        query: float tensor (B, H, W, C); H and W may be None.
        return_attention_scores: also return, in float32 (B, N, H·W, H·W), how
            much each cell counts in the sum of queries: the size of its weight
            among the sizes of all, for all heads and queries alike.

    Returns:
        Tensor (B, H, W, C) or of `output_channels`, and the weights on
        request.

    Raises:
        ValueError: an argument out of its range; an input that is no picture
            of known channels; a mask.

    Cost: O(H·W·F·(C + F)) time, O(H·W·F) memory; the weights, which nothing
    else needs, O(N·(H·W)²).

    Example:

    >>> layer = EfficientAdditiveAttention(key_dim=8)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: https://arxiv.org/abs/2303.15446, section 3.2.
    """

    def __init__(
        self, num_heads=1, key_dim=None, output_channels=None, **kwargs
    ):
        super().__init__(num_heads, **kwargs)
        self.key_dim, self.output_channels = check_positive_or_none(
            key_dim=key_dim, output_channels=output_channels
        )

    def build_maps(self, channels):
        key_dim = channels if self.key_dim is None else self.key_dim
        width = self.num_heads * key_dim
        self.query = self.linear_map("query", channels, width)
        self.key = self.linear_map("key", channels, width)
        self.weight = self.add_weight(
            shape=(width, 1),
            initializer=fresh(self.kernel_initializer),
            name="weight",
        )
        self.mixing = self.linear_map("mixing", width, width)
        (filters,) = self.compute_output_shape((channels,))
        self.output_map = self.linear_map("output", width, filters)

    def attend(self, inputs, mask, training, return_attention_scores):
        self.check_inputs(inputs, mask)
        found, query, weights = efficient_additive_attention(
            flatten(self.query(inputs)),
            flatten(self.key(inputs)),
            self.weight[:, 0],
        )
        found = self.mixing(unflatten(found, inputs, None))
        query = ops.cast(unflatten(query, inputs, None), found.dtype)
        output = self.output_map(found + query)
        if not return_attention_scores:
            return output
        sizes = ops.abs(weights)
        # A picture of zeros has no weights; its cells share alike.
        none = ops.sum(sizes, axis=-1, keepdims=True) == 0
        sizes = ops.where(none, ops.ones_like(sizes), sizes)
        shares = sizes / ops.sum(sizes, axis=-1, keepdims=True)
        # All queries see one sum.
        ones = ops.ones_like(shares)[:, None, :, None]
        shares = ones * shares[:, None, None]
        return output, ops.repeat(shares, self.num_heads, axis=1)

    def get_config(self):
        return {
            **super().get_config(),
            "key_dim": self.key_dim,
            "output_channels": self.output_channels,
        }
