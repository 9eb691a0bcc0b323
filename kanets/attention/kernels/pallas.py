"""Sparse attention and means of a grid as Pallas kernels, for JAX alone.

On a GPU the kernels are compiled by Triton (JAX 0.11 warns that it will not
keep that backend), on a TPU by Mosaic, and on a CPU they are interpreted,
slowly, for tests. What goes through device memory is inputs, outputs and one
normaliser for each query; scores stay on the chip, in both directions.

Both steps of a sparse pattern are the same kernels. Queries come in groups
[A, G, P, D] for A pictures and heads, keys in groups [A, G, R, D], or one
group that all share; a query sees an interval of its group's keys, and in the
summary step a key of its own, with which the running softmax starts. The
softmax is that of FlashAttention (Dao et al., 2022, algorithms 1 and 4): the
backward pass computes scores again, from the logarithm of their sum.

Precision: products of float16 and bfloat16 accumulate in float32, weights are
rounded to the dtype of the values. Products of float32 are exact to float32,
never TensorFloat-32, which costs speed. The softmax is in float32.
"""

from kanets.attention.kernels import flash, means, xla
from kanets.attention.kernels.calls import traced_once
from kanets.attention.kernels.layouts import layout_of, shared_layout


def attention(query, key, value, pattern, scale, return_weights):
    """Attention of all heads given over one pattern.

    Arguments and results as in `reference.attention`, in float16,
    bfloat16 or float32. Head sizes are padded to powers of two from 16 on.

    `kernels.xla` computes what these kernels do not: a `NeighbourPattern`, a
    `GroupPattern` with queries that see no interval, and weights.

    Cost: O(edges (D + E)) time; O(n (D + E)) memory, where `kernels.xla`
    takes O(edges).

    References: the steps are those of Daras et al., CVPR 2020, section 3; the
    kernels those of Dao et al., NeurIPS 2022 (https://arxiv.org/abs/2205.14135).
    """
    layout = None if return_weights else layout_of(pattern)
    if layout is None:
        return xla.attention(query, key, value, pattern, scale, return_weights)
    options = (layout, float(scale))
    return traced_once(flash.attention, options, query, key, value), None


def shared_attention(query, key, value, scale=1.0):
    """Attention of all queries over the same few keys.

    Args:
        query: float16, bfloat16 or float32 tensor (B, N, n, D).
        key: tensor (B, N, M, D) of the same dtype.
        value: tensor (B, N, M, E).
        scale: float, factor of the scores.

    Returns:
        (B, N, n, E), dtype of `value`; the softmax is in float32.

    Cost: O(n M (D + E)) time, O((n + M) (D + E)) memory.
    """
    layout = shared_layout(query.shape[2], tuple(range(key.shape[2])))
    options = (layout, float(scale))
    return traced_once(flash.attention, options, query, key, value)


def axis_means(x):
    """Means of the rows and of the columns of a picture, in one pass over it.

    Args:
        x: float16, bfloat16 or float32 tensor (B, H, W, C).

    Returns:
        List of means of rows (B, H, C) and of columns (B, W, C), in the dtype
        of `x`; sums run in float32.

    Cost: one read of x, and a tenth to a fifth of it for partial sums.
    """
    return list(traced_once(means.axis_means, (), x))
