"""SMYRF: attention within balanced clusters of queries and of keys.

Daras, Kitaev, Odena and Dimakis, "SMYRF: Efficient Attention using Asymmetric
Clustering" (NeurIPS 2020). Queries and keys may be maps of their own, and the
weights are those of dense attention: it can stand in for dense attention that
was trained already.

The hash of the paper is a point of a line, x·a + b, sorted and not rounded:
neither its offset b nor its width changes the order, and there is none here.
"""

import keras
from keras import ops

from kanets.attention.checks import check_positive, logit_scale
from kanets.attention.clusters import (
    Clusters,
    HashedAttention,
    check_sortable,
    cluster_attention,
    picked,
    sort,
    split,
)
from kanets.attention.core import check_heads, merge_heads

_LAST = 3e38  # after all hashes


def smyrf_attention(
    query,
    key,
    value,
    projections,
    num_heads=1,
    scale=None,
    cluster_size=16,
    query_mask=None,
    key_mask=None,
    return_attention_scores=False,
):
    """Attention of each query over the keys of its clusters.

    In each round queries and keys are made vectors of one length,

        F(q) = [q, 0, sqrt(Mq² + Mk² - |q|²)]
        G(k) = [k, sqrt(Mq² + Mk² - |k|²), 0],  Mq = max |q|, Mk = max |k|,

    so that those are near each other whose product is large, sorted by their
    projection to a random line, and cut into K / cluster_size clusters each,
    whose sizes differ by one at most. The rounds together are one softmax.

    Args:
        query: float tensor (B, Q, C).
        key: float tensor (B, K, C).
        value: float tensor (B, K, V).
        projections: the lines, float tensor (D + 2, R): rows 0 to D are of q
            and k, the next of the keys' last number, then of the queries'.
            Normal numbers.
        num_heads: N, a divisor of C and V; all heads share the lines.
        scale: factor of the logits; None is none, "rsqrt" is 1/sqrt(D).
        cluster_size: how many keys a cluster has at most. One that holds all
            keys gives dense attention.
        query_mask: optional bool tensor (B, Q), True where valid. The others
            take no place in a cluster, and their outputs mean nothing.
        key_mask: optional bool tensor (B, K), likewise.
        return_attention_scores: also return the weights.

    Returns:
        Tensor (B, Q, V), dtype of `value`, zero for a query in whose clusters
        no key is valid; with `return_attention_scores` a pair of it and the
        weights (B, N, Q, K) in float32. No gradient goes through the order.

    Raises:
        ValueError: `num_heads` does not divide C and V; a `scale` or a
            `cluster_size` out of range; `projections` that are not (D + 2, R).

    Cost: O(R Q cluster_size C + R (Q + K) log(Q + K)) time, O(R Q
    cluster_size N) memory; the weights, for drawing only, O(N Q K).

    Example:

    >>> x = keras.random.normal((2, 256, 32))
    >>> smyrf_attention(x, x, x, keras.random.normal((34, 4))).shape
    (2, 256, 32)

    References: Daras et al., "SMYRF", NeurIPS 2020, sections 3.1 to 3.3.
    """
    cluster_size = check_positive(cluster_size=cluster_size)
    head_dim = check_heads(query.shape[-1], value.shape[-1], num_heads)
    _check_projections(projections, head_dim)
    query, key, value = (split(x, num_heads) for x in (query, key, value))
    count = -(-ops.shape(key)[2] // cluster_size)
    if isinstance(count, int) and count == 1:  # all rounds would be the same
        projections = projections[:, :1]
    hashes = hash_values(query, key, projections, query_mask, key_mask)
    queries, keys = (
        balanced_clusters(x, count, mask)
        for x, mask in zip(hashes, (query_mask, key_mask), strict=True)
    )
    output, weights = cluster_attention(
        query,
        key,
        value,
        queries,
        keys,
        logit_scale(scale, head_dim),
        return_attention_scores=return_attention_scores,
    )
    output = merge_heads(output)
    return (output, weights) if return_attention_scores else output


def hash_values(query, key, projections, query_mask=None, key_mask=None):
    """Where the asymmetric transforms of queries and keys are on the lines.

    Args:
        query, key: float tensors (B, N, Q, D), (B, N, K, D).
        projections: float tensor (D + 2, R).
        query_mask, key_mask: bool tensors (B, Q), (B, K), or None.

    Returns:
        float32 tensors (B, N, R, Q) and (B, N, R, K), without gradients.
    """
    size = query.shape[-1]
    lines = ops.stop_gradient(ops.cast(projections, "float32"))
    vectors = [ops.stop_gradient(ops.cast(x, "float32")) for x in (query, key)]
    squares = [ops.sum(x * x, axis=-1, keepdims=True) for x in vectors]
    largest = sum(
        ops.max(_valid(s, mask, 0.0), axis=2, keepdims=True)
        for s, mask in zip(squares, (query_mask, key_mask), strict=True)
    )
    return [
        ops.transpose(
            ops.tensordot(x, lines[:size], 1)
            + ops.sqrt(ops.maximum(largest - square, 0.0)) * lines[last],
            (0, 1, 3, 2),
        )
        for x, square, last in zip(
            vectors, squares, (size + 1, size), strict=True
        )
    ]


def balanced_clusters(hashes, count, mask=None):
    """`Clusters` of tokens with neighbouring hashes.

    The n valid tokens of a picture are shared out evenly, whatever the
    padding: cluster g holds those of the ranks floor(g n / G) to
    floor((g + 1) n / G).

    Args:
        hashes: float32 tensor (B, N, R, T).
        count: G.
        mask: bool tensor (B, T), True where valid, or None.

    Returns:
        `Clusters` of ceil(T / G) slots.
    """
    _, num_heads, rounds, length = ops.shape(hashes)
    check_sortable(count, length)
    size = -(-length // count)
    valid = length
    if mask is not None:
        mask = ops.cast(mask, "bool")
        hashes = ops.where(mask[:, None, None], hashes, _LAST)
        valid = ops.sum(ops.cast(mask, "int32"), axis=-1)[:, None, None, None]
    order, rank = sort(hashes)
    slot = ops.arange(count * size, dtype="int32")
    cluster = slot // size
    standing = cluster * valid // count + slot % size
    tokens, present = order, None
    if mask is not None or not _divides(count, length):
        inside = standing < (cluster + 1) * valid // count
        tokens = picked(order, ops.minimum(standing, length - 1))
        present = ops.broadcast_to(inside, ops.shape(tokens))
        present = ops.reshape(present, (-1, num_heads, rounds * count * size))
    tokens = ops.reshape(tokens, (-1, num_heads, rounds * count * size))
    cluster = ((rank + 1) * count - 1) // ops.maximum(valid, 1)
    slots = cluster * size + rank - cluster * valid // count
    slots = ops.minimum(slots, count * size - 1)  # padding is after all
    first = ops.arange(rounds, dtype="int32") * (count * size)
    return Clusters(tokens, present, slots + first[:, None], size)


@keras.saving.register_keras_serializable(package="kanets")
class SMYRFAttention(HashedAttention):
    """Attention within balanced clusters of asymmetric hashes, O(n log n).

    Y = o(SMYRF(q(X), k(X), v(X))), as in `smyrf_attention`. A grid of no more
    cells than a cluster has gets dense attention.

    Args:
        cluster_size: how many keys a cluster has at most.
        num_rounds: R; a query sees R times that many keys.
        fresh_hashes: whether each call in training draws its own lines, as
            the authors' does. Those in inference are weights, drawn once and
            saved.
        seed: int, of both; None for another one each time.
        num_heads, projections, key_dim, scale, use_bias, kernel_initializer,
            kernel_regularizer, output_initializer: as in
            `KroneckerAttention`.

    Call arguments:
        query: float tensor (B, *grid, C); sizes of the grid may be None.
        mask: optional bool tensor (B, *grid), True where valid. What is
            valid gives what it would give without the padding.
        training: whether hashes may be drawn.
        return_attention_scores: also return the weights (B, N, n, n) in
            float32, n the cells: O(n²) memory, for drawing only.

    Returns:
        Tensor (B, *grid, C), and the weights on request. Hashes and softmax
        run in float32 in every precision; in half precision a cell near the
        border of two clusters may come into the other one.

    Raises:
        ValueError: an argument out of its range, named with its value.

    Cost: O(R n cluster_size C + R n log n) time, O(R n cluster_size N) memory.

    Example:

    >>> layer = SMYRFAttention(cluster_size=32, num_rounds=4, num_heads=2)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: Daras et al., "SMYRF", NeurIPS 2020.
    """

    def __init__(self, cluster_size=16, num_rounds=4, **kwargs):
        super().__init__(num_rounds=num_rounds, **kwargs)
        self.cluster_size = check_positive(cluster_size=cluster_size)

    def hash_shape(self, head_dim):
        return (head_dim + 2, self.num_rounds)

    def clustered(self, query, key, value, hashes, mask, **arguments):
        return smyrf_attention(
            query,
            key,
            value,
            hashes,
            cluster_size=self.cluster_size,
            query_mask=mask,
            key_mask=mask,
            **arguments,
        )

    def get_config(self):
        return {**super().get_config(), "cluster_size": self.cluster_size}


def _divides(count, length):
    """Whether a number that is known is a multiple of another."""
    is_known = isinstance(count, int) and isinstance(length, int)
    return is_known and length % count == 0


def _valid(values, mask, otherwise):
    """Values (B, N, T, 1) with another where a mask (B, T) is not True."""
    if mask is None:
        return values
    mask = ops.cast(mask, "bool")
    return ops.where(mask[:, None, :, None], values, otherwise)


def _check_projections(projections, head_dim):
    shape = tuple(projections.shape)
    if len(shape) != 2 or shape[0] != head_dim + 2:
        raise ValueError(
            "projections must be (size of a head + 2, rounds). Received: "
            f"projections.shape={shape}, size of a head={head_dim}"
        )
