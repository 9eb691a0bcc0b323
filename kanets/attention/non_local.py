"""The non-local operator: every cell sees all, by one of four similarities.

Wang, Girshick, Gupta and He, "Non-local Neural Networks", CVPR 2018. Dense
attention is one of its forms; in two others there is no softmax, and what a
cell sees is divided by the number of cells.

Letters: B batch, H W grid, C channels, F features, N heads, Q queries, K keys.
"""

import keras
import numpy as np
from keras import ops

from kanets.attention.base import fresh
from kanets.attention.checks import (
    check_choice,
    check_positive,
    logit_scale,
)
from kanets.attention.core import (
    check_heads,
    masked_softmax,
    merge_heads,
    scores,
    split_heads,
    wide_dtype,
)
from kanets.attention.grid import (
    block_shares,
    cells,
    fill_block,
    flatten,
    spread_by,
    unflatten,
)
from kanets.attention.picture import MappedAttention

SIMILARITIES = (
    "embedded_gaussian",
    "gaussian",
    "dot_product",
    "concatenation",
)


def non_local_attention(
    query,
    key,
    value,
    similarity="embedded_gaussian",
    num_heads=1,
    scale=None,
    pair=None,
):
    """Sums of values, weighted by the similarity of queries and keys.

        "gaussian", "embedded_gaussian"  softmax(q·k)
        "dot_product"                    q·k / K
        "concatenation"                  relu(w·[q, k]) / K

    The first two differ in what queries and keys are: the cells themselves, or
    maps of them.

    Args:
        query: tensor (B, Q, F).
        key, value: tensors (B, K, F) and (B, K, E).
        similarity: one of these.
        num_heads: N, a divisor of F and E; one in the paper.
        scale: factor of the products; None is none, "rsqrt" is 1/sqrt(F / N).
        pair: w, tensor (2, F), for a concatenation.

    Returns:
        Output (B, Q, E) in the dtype of `value`, and the weights
        (B, N, Q, K) in float32: without a softmax they are of any sum, and
        products of any sign.

    Raises:
        ValueError: an unknown similarity; a concatenation without w; heads
            that do not divide the features; a `scale` that is none.

    Cost: O(Q·K·(F + E)) time, O(N·Q·K) memory.

    References: https://arxiv.org/abs/1711.07971, section 3.2.
    """
    check_choice(SIMILARITIES, similarity=similarity)
    if (pair is None) == (similarity == "concatenation"):
        raise ValueError(
            'pair is of similarity="concatenation", and of no other. Received: '
            f"pair={'None' if pair is None else 'given'}, "
            f"similarity={similarity!r}"
        )
    head_dim = check_heads(query.shape[-1], value.shape[-1], num_heads)
    if pair is not None:
        of_query, of_key = (
            _sums(t, w, num_heads)
            for t, w in ((query, pair[0]), (key, pair[1]))
        )
        # Not by [..., None], which LiteRT refuses where sizes are open.
        of_query, of_key = (
            ops.expand_dims(of_query, -1),
            ops.expand_dims(of_key, -2),
        )
        weights = ops.relu(of_query + of_key)
    query, key, value = (split_heads(t, num_heads) for t in (query, key, value))
    if pair is None:
        weights = scores(query, key, logit_scale(scale, head_dim))
    if "gaussian" in similarity:
        weights = masked_softmax(weights)
    else:
        weights = weights / ops.cast(ops.shape(key)[-2], weights.dtype)
    output = ops.matmul(ops.cast(weights, value.dtype), value)
    if num_heads == 1:
        return output, weights[:, None]
    return merge_heads(output), weights


@keras.saving.register_keras_serializable(package="kanets")
class NonLocalAttention(MappedAttention):
    """The non-local operator of a picture, with its maps.

        Y = o(Σ f(q(X), k(X)) v(X)), and X + Y as the paper's block

    Args:
        num_heads: N, a divisor of the features; one in the paper.
        similarity: f, of `non_local_attention`. "gaussian" has no maps q and
            k, and N divides C, too.
        reduction: there are C / reduction features, rounded down, 1 at least.
        pool_size: side of the windows whose largest keys and values are taken;
            1 is none, 2 the paper's. What fills no window at the end of an
            axis is in none, and a picture smaller than a window is one.
        residual: whether the input is added, as in the paper's block.
        scale: factor of the products; None is none, "rsqrt" is
            1/sqrt(features / N), or a number. Of no effect in a concatenation.
        use_bias: whether the maps have a bias.
        kernel_initializer: of all kernels.
        output_initializer: of the kernel of o; None is `kernel_initializer`.

    Call arguments:
        query: float tensor (B, H, W, C); H and W may be None.
        return_attention_scores: also return the weights, in float32
            (B, N, H·W, keys), as in `non_local_attention`.

    Returns:
        Tensor (B, H, W, C), and the weights on request.

    Raises:
        ValueError: an argument out of its range; an input that is no picture
            of known channels; a mask.

    Cost: O((H·W)²·C / pool_size²) time, O(N·(H·W)² / pool_size²) memory.

    Example:

    >>> layer = NonLocalAttention(similarity="dot_product", pool_size=2)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: https://arxiv.org/abs/1711.07971, sections 3.2 and 3.3.
    """

    def __init__(
        self,
        num_heads=1,
        similarity="embedded_gaussian",
        reduction=2,
        pool_size=1,
        residual=False,
        **kwargs,
    ):
        super().__init__(num_heads, **kwargs)
        check_choice(SIMILARITIES, similarity=similarity)
        self.reduction, self.pool_size = check_positive(
            reduction=reduction, pool_size=pool_size
        )
        self.similarity = similarity
        self.residual = residual

    def build_maps(self, channels):
        width = max(1, channels // self.reduction)
        mapped = self.similarity != "gaussian"
        check_heads(width if mapped else channels, width, self.num_heads)
        self.query = self.key = self.pair = None
        if mapped:
            self.query = self.linear_map("query", channels, width)
            self.key = self.linear_map("key", channels, width)
        if self.similarity == "concatenation":
            self.pair = self.add_weight(
                shape=(2, width),
                initializer=fresh(self.kernel_initializer),
                name="pair",
            )
        self.value = self.linear_map("value", channels, width)
        self.output_map = self.linear_map("output", width, channels)

    def attend(self, inputs, mask, training, return_attention_scores):
        self.check_inputs(inputs, mask)
        query = key = inputs
        if self.query is not None:
            query, key = self.query(inputs), self.key(inputs)
        found, weights = non_local_attention(
            flatten(query),
            flatten(self._pooled(key)),
            flatten(self._pooled(self.value(inputs))),
            self.similarity,
            self.num_heads,
            self.scale,
            self.pair,
        )
        output = self.output_map(unflatten(found, inputs, None))
        if self.residual:
            output = inputs + output
        return (output, weights) if return_attention_scores else output

    def start_at_zero(self):
        return not self.residual and super().start_at_zero()

    def _pooled(self, x):
        if self.pool_size == 1:
            return x
        return ops.max_pool(
            fill_block(x, self.pool_size),
            self.pool_size,
            self.pool_size,
            data_format="channels_last",
        )

    def _token_counts(self, grid):
        sizes = [
            None if n is None else max(1, n // self.pool_size) for n in grid
        ]
        return cells(grid), cells(sizes)

    def _maps_at(self, scores, cell, grid):
        # Products may be negative, and all that is rectified zero.
        keys = np.abs(scores[:, :, cell[0] * grid[1] + cell[1]])
        keys = np.where(keys.any(-1, keepdims=True), keys, 1.0)
        keys = keys / keys.sum(-1, keepdims=True)
        return spread_by(
            keys, *(block_shares(size, self.pool_size) for size in grid)
        )

    def get_config(self):
        return {
            **super().get_config(),
            "similarity": self.similarity,
            "reduction": self.reduction,
            "pool_size": self.pool_size,
            "residual": self.residual,
        }


def _sums(tokens, weights, num_heads):
    """Weighted sums of the features of a head, (B, N, T) or (B, T)."""
    wide = wide_dtype(tokens)
    products = ops.cast(tokens, wide) * ops.cast(weights, wide)
    return ops.sum(split_heads(products, num_heads), axis=-1)
