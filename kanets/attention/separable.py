"""Separable self-attention: one weight a cell, one context for all.

Mehta and Rastegari, "Separable Self-attention for Mobile Vision Transformers",
TMLR 2023. A single learned query scores the cells, so that weights are a vector
and not a matrix: what all cells together say is one vector of keys, by which
each cell's values are multiplied.

Letters: B batch, H W grid, C channels, N heads, T tokens H·W, p patch size.
"""

import keras
from keras import ops

from kanets.attention.checks import check_divides, check_positive
from kanets.attention.core import (
    masked_softmax,
    merge_heads,
    split_heads,
    wide_dtype,
)
from kanets.attention.grid import fill_block, flatten
from kanets.attention.picture import MappedAttention


def separable_attention(
    query, key, value, patch_size=1, return_attention_scores=False
):
    """Values times a weighted sum of keys.

        Y = relu(V) · Σ softmax(q) K

    With a `patch_size` of p, cells attend within those at their own one of the
    p·p places in a patch; the patches may be cut off by the edge.

    Args:
        query: tensor (B, H, W, N), scores of the cells.
        key, value: tensors (B, H, W, C), N heads of contiguous channels.
        patch_size: p; 1 is attention to all cells.
        return_attention_scores: also return the weights.

    Returns:
        Tensor (B, H, W, C) in the dtype of `value`; with
        `return_attention_scores` a pair of it and the weights, in float32
        (B, N, T, T), zero between different places.

    Raises:
        ValueError: heads that do not divide the channels.

    Cost: O(T·C) time and memory; the weights O(N·T²) more.

    References: https://arxiv.org/abs/2206.02680, section 3.2.
    """
    num_heads = query.shape[-1]
    check_divides(num_heads, key.shape[-1])
    pairs = [
        _context(scores, keys)
        for scores, keys in zip(
            *(_by_place(t, patch_size) for t in (query, key)), strict=True
        )
    ]
    contexts, totals = zip(*pairs, strict=True)
    context = _everywhere(contexts, value, patch_size)
    output = ops.relu(value) * ops.cast(context, value.dtype)
    if not return_attention_scores:
        return output
    total = _everywhere(totals, query, patch_size)
    weights = ops.exp(ops.cast(query, total.dtype) - total)
    return output, _matrix(weights, patch_size)


@keras.saving.register_keras_serializable(package="kanets")
class SeparableAttention(MappedAttention):
    """Separable self-attention of a picture.

        Y = o(relu(v(X)) · Σ softmax(q(X)) k(X))

    q is one number a head, and q, k and v are one map. The mechanism of
    MobileViTv2, there between patches: `patch_size=2`.

    Args:
        num_heads: N, a divisor of C; one in the paper.
        patch_size: p, of `separable_attention`.
        scale: of no effect, as no query meets a key.
        use_bias: whether the two maps have a bias.
        kernel_initializer: of all kernels.
        output_initializer: of the kernel of o; None is `kernel_initializer`.

    Call arguments:
        query: float tensor (B, H, W, C); H and W may be None.
        return_attention_scores: also return the weights, in float32
            (B, N, H·W, H·W).

    Returns:
        Tensor (B, H, W, C), and the weights on request.

    Raises:
        ValueError: an argument out of its range; an input that is no picture
            of known channels; a mask.

    Cost: O(H·W·C²) time, O(H·W·C) memory; the weights, which nothing else
    needs, O(N·(H·W)²).

    Example:

    >>> layer = SeparableAttention(patch_size=2)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: https://arxiv.org/abs/2206.02680, section 3.2.
    """

    def __init__(self, num_heads=1, patch_size=1, **kwargs):
        super().__init__(num_heads, **kwargs)
        self.patch_size = check_positive(patch_size=patch_size)

    def build_maps(self, channels):
        check_divides(self.num_heads, channels)
        width = self.num_heads + 2 * channels
        self.maps = self.linear_map("maps", channels, width)
        self.output_map = self.linear_map("output", channels, channels)

    def attend(self, inputs, mask, training, return_attention_scores):
        self.check_inputs(inputs, mask)
        maps, heads = self.maps(inputs), self.num_heads
        channels = inputs.shape[-1]
        found = separable_attention(
            maps[..., :heads],
            maps[..., heads : heads + channels],
            maps[..., heads + channels :],
            self.patch_size,
            return_attention_scores,
        )
        if not return_attention_scores:
            return self.output_map(found)
        output, weights = found
        return self.output_map(output), weights

    def get_config(self):
        return {**super().get_config(), "patch_size": self.patch_size}


def _by_place(x, patch_size):
    """The cells at each place of a patch; other than zero, even of a place
    that lies outside of a small picture."""
    x = fill_block(x, patch_size)
    return [
        x[:, row::patch_size, column::patch_size]
        for row in range(patch_size)
        for column in range(patch_size)
    ]


def _context(scores, keys):
    """The weighted sum of keys and the logarithm of the weights' divisor.

    Returns:
        Tensors (B, C) in the dtype of the keys and, in float32, (B, N).
    """
    num_heads = scores.shape[-1]
    keys = split_heads(flatten(keys), num_heads)
    wide = wide_dtype(scores)
    scores = ops.swapaxes(flatten(ops.cast(scores, wide)), 1, 2)
    weights = ops.cast(masked_softmax(scores), keys.dtype)
    total = ops.logsumexp(scores, axis=-1)
    if num_heads == 1:
        return ops.matmul(weights, keys)[:, 0], total
    return merge_heads(ops.matmul(weights[:, :, None], keys))[:, 0], total


def _everywhere(vectors, like, patch_size):
    """One vector (B, C) a place, at all the cells of that place."""
    if patch_size == 1:
        return vectors[0][:, None, None]
    shape = (-1, patch_size, patch_size, vectors[0].shape[-1])
    x = ops.reshape(ops.stack(vectors, 1), shape)
    for axis in (1, 2):
        x = ops.take(x, _place(ops.shape(like)[axis], patch_size), axis=axis)
    return x


def _place(size, patch_size):
    return ops.arange(size, dtype="int32") % patch_size


def _matrix(weights, patch_size):
    """Weights (B, H, W, N) as (B, N, T, T), zero between places."""
    _, height, width, _ = ops.shape(weights)
    place = _place(height, patch_size)[:, None] * patch_size
    place = ops.reshape(place + _place(width, patch_size), (-1,))
    same = ops.cast(place[:, None] == place, weights.dtype)
    weights = ops.swapaxes(flatten(weights), 1, 2)
    return weights[:, :, None] * same
