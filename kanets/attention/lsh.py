"""LSH attention of the Reformer: within chunks of tokens sorted by bucket.

Kitaev, Kaiser and Levskaya, "Reformer: The Efficient Transformer" (ICLR 2020).
Queries and keys are one and the same, but for the length of the keys. As in
the code that trained models come with, and other than in the paper, a query
sees all keys of its chunks, whatever their bucket; the list of chunks is a
circle that all rounds share; and a key that is seen twice counts twice.
"""

import math

import keras
from keras import ops

from kanets.attention.checks import (
    check_at_least,
    check_bool,
    check_positive,
    logit_scale,
)
from kanets.attention.clusters import (
    Clusters,
    HashedAttention,
    check_sortable,
    cluster_attention,
    sort,
    split,
)
from kanets.attention.core import check_heads, merge_heads, wide_dtype
from kanets.checks import as_integer

_EPSILON = 1e-6


def lsh_attention(
    query_key,
    value,
    rotations,
    num_heads=1,
    scale=None,
    num_buckets=None,
    chunk_length=16,
    chunks_before=1,
    chunks_after=0,
    causal=False,
    key_mask=None,
    return_attention_scores=False,
):
    """Attention of each token over those of its chunk and of chunks beside it.

    In each round tokens are sorted by their bucket, the largest of
    [x R, -x R] with R random, and the sorted list is cut into chunks. Keys are
    the queries, made unit vectors. A token sees itself only where it sees
    nothing else.

    Args:
        query_key: float tensor (B, T, C), the queries and keys.
        value: float tensor (B, T, V).
        rotations: R, float tensor (N, D, rounds, F) of normal numbers.
        num_heads: N, a divisor of C and V.
        scale: factor of the logits; None is none, as the keys have length 1;
            "rsqrt" is 1/sqrt(D).
        num_buckets: an even integer, or several, whose product is the number
            of buckets: each is found by columns of its own, half as many.
            None is 2 F.
        chunk_length: tokens of a chunk. A list that is shorter gets dense
            attention, without hashes.
        chunks_before, chunks_after: how many chunks beside its own a query
            sees.
        causal: whether a token sees none that come after it.
        key_mask: optional bool tensor (B, T), True where valid. The others
            have a bucket of their own, the last, and are seen by none but
            themselves.
        return_attention_scores: also return the weights.

    Returns:
        Tensor (B, T, V), dtype of `value`; with `return_attention_scores` a
        pair of it and the weights (B, N, T, T) in float32. No gradient goes
        through the buckets.

    Raises:
        ValueError: an argument out of its range, named with its value;
            `rotations` that are not (N, D, rounds, half of all buckets).

    Cost: with W = (1 + chunks_before + chunks_after) chunk_length keys,
    O(rounds T W C + rounds T log T) time, O(rounds T W N) memory; the
    weights, for drawing only, O(N T²).

    Example:

    >>> x = keras.random.normal((2, 256, 32))
    >>> lsh_attention(x, x, keras.random.normal((1, 32, 4, 8))).shape
    (2, 256, 32)

    References: Kitaev et al., "Reformer", ICLR 2020, section 2.
    """
    chunk_length = check_positive(chunk_length=chunk_length)
    chunks_before, chunks_after = check_at_least(
        0, chunks_before=chunks_before, chunks_after=chunks_after
    )
    causal = check_bool(causal=causal)
    head_dim = check_heads(query_key.shape[-1], value.shape[-1], num_heads)
    if num_buckets is None:
        num_buckets = 2 * rotations.shape[-1]
    factors = _factors(num_buckets)
    _check_rotations(rotations, num_heads, head_dim, factors)
    query, value = split(query_key, num_heads), split(value, num_heads)
    length = ops.shape(query)[2]
    if isinstance(length, int) and length <= chunk_length:
        rotations, chunk_length = rotations[:, :, :1], length
        chunks_before = chunks_after = 0
    queries = chunks(
        lsh_buckets(query, rotations, factors),
        chunk_length,
        math.prod(factors),
        key_mask,
    )
    output, weights = cluster_attention(
        query,
        _unit(query),
        value,
        queries,
        with_neighbours(queries, chunks_before, chunks_after),
        logit_scale(scale, head_dim),
        causal=causal,
        itself_last=True,
        return_attention_scores=return_attention_scores,
    )
    output = merge_heads(output)
    return (output, weights) if return_attention_scores else output


def lsh_buckets(x, rotations, factors):
    """The bucket of each token in each round.

    Args:
        x: float tensor (B, N, T, D).
        rotations: float tensor (N, D, rounds, F).
        factors: even integers of sum 2 F.

    Returns:
        int32 (B, N, rounds, T), from 0 to the product of the factors.
    """
    num_heads, size, rounds, columns = rotations.shape
    x = ops.stop_gradient(ops.cast(x, "float32"))
    rotations = ops.stop_gradient(ops.cast(rotations, "float32"))
    rotations = ops.reshape(rotations, (num_heads, size, rounds * columns))
    # TensorFlow 2.21's matmul of (B, 1, T, D) and (1, D, F) breaks the heap.
    turned = ops.einsum("bntd,ndf->bntf", x, rotations)
    turned = ops.reshape(turned, (-1, rounds, columns))
    buckets, step, start = 0, 1, 0
    for factor in factors:
        part = turned[..., start : start + factor // 2]
        buckets = buckets + step * _argmax(
            ops.concatenate([part, -part], axis=-1)
        )
        step, start = step * factor, start + factor // 2
    buckets = ops.reshape(buckets, (-1, num_heads, ops.shape(x)[2], rounds))
    return ops.transpose(buckets, (0, 1, 3, 2))


def chunks(buckets, size, last, mask=None):
    """`Clusters` of tokens sorted by bucket, then by position.

    Args:
        buckets: int32 tensor (B, N, R, T).
        size: P. Padding makes T a multiple.
        last: the bucket of padding, above all others.
        mask: bool tensor (B, T), True where valid, or None.

    Returns:
        `Clusters`.
    """
    _, num_heads, rounds, length = ops.shape(buckets)
    slots = -(-length // size) * size
    position = ops.arange(slots, dtype="int32")
    valid = length
    if mask is not None:
        mask = ops.cast(mask, "bool")[:, None, None]
        buckets = ops.where(mask, buckets, last)
        valid = ops.sum(ops.cast(mask, "int32"), axis=-1, keepdims=True)
    is_full = isinstance(length, int) and slots == length
    if not is_full:
        token = ops.minimum(position, length - 1)
        buckets = ops.take(buckets, token, axis=-1)
        buckets = ops.where(position < length, buckets, last)
    check_sortable(last + 1, slots)
    # By a vector: OpenVINO 2026 multiplies int32 by a scalar wrongly here.
    step = ops.full_like(position, slots)
    order, rank = sort(buckets * step + position)
    present = None
    if mask is not None or not is_full:  # padding is at the end of a round
        present = ops.broadcast_to(position < valid, ops.shape(order))
        present = ops.reshape(present, (-1, num_heads, rounds * slots))
    first = ops.arange(rounds, dtype="int32")[:, None] * slots
    return Clusters(
        ops.reshape(order, (-1, num_heads, rounds * slots)),
        present,
        rank[..., :length] + first,
        size,
    )


@keras.saving.register_keras_serializable(package="kanets")
class LSHAttention(HashedAttention):
    """Attention within chunks of cells sorted by bucket, O(n log n).

    Y = o(LSH(q(X), v(X))), as in `lsh_attention`: q makes queries and keys.
    A grid of no more cells than a chunk gets dense attention, but for a cell
    itself. Cells stand in row-major order.

    Args:
        num_buckets: an even integer, or a list of several, see
            `lsh_attention`. About twice as many as the map has chunks.
        chunk_length, chunks_before, chunks_after, causal: as in
            `lsh_attention`.
        num_rounds: a query sees (1 + chunks_before + chunks_after)
            chunk_length keys in each.
        fresh_hashes: whether each call in training draws its own rotations,
            as in the paper. Those in inference are weights, drawn once and
            saved.
        seed: int, of both; None for another one each time.
        num_heads: N, a divisor of the channels, but with `key_dim`.
        projections: which of q, v, o are learned C -> C maps; the others are
            identities.
        key_dim: D, with "qvo": q and v are then C -> N·D and o N·D -> C.
        scale, use_bias, kernel_initializer, kernel_regularizer,
            output_initializer: as in `KroneckerAttention`.

    Call arguments:
        query: float tensor (B, *grid, C); sizes of the grid may be None.
        mask: optional bool tensor (B, *grid), True where valid.
        training: whether hashes may be drawn.
        return_attention_scores: also return the weights (B, N, n, n) in
            float32, n the cells: O(n²) memory, for drawing only.

    Returns:
        Tensor (B, *grid, C), and the weights on request. Hashes and softmax
        run in float32 in every precision; in half precision a cell between
        two buckets may come into the other one.

    Raises:
        ValueError: an argument out of its range, named with its value.

    Cost: as `lsh_attention`.

    Example:

    >>> layer = LSHAttention(num_buckets=16, num_rounds=2, num_heads=2)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: Kitaev et al., "Reformer", ICLR 2020, section 2.
    """

    map_names = {"q": "query_key", "v": "value", "o": "output"}

    def __init__(
        self,
        num_buckets=16,
        chunk_length=16,
        chunks_before=1,
        chunks_after=0,
        num_rounds=2,
        causal=False,
        **kwargs,
    ):
        super().__init__(num_rounds=num_rounds, **kwargs)
        self.chunk_length = check_positive(chunk_length=chunk_length)
        self.chunks_before, self.chunks_after = check_at_least(
            0, chunks_before=chunks_before, chunks_after=chunks_after
        )
        factors = _factors(num_buckets)
        number = as_integer(num_buckets)
        self.num_buckets = list(factors) if number is None else number
        self.causal = check_bool(causal=causal)

    def hash_shape(self, head_dim):
        columns = sum(_factors(self.num_buckets)) // 2
        return (self.num_heads, head_dim, self.num_rounds, columns)

    def clustered(self, query, key, value, hashes, mask, **arguments):
        return lsh_attention(
            query,
            value,
            hashes,
            num_buckets=self.num_buckets,
            chunk_length=self.chunk_length,
            chunks_before=self.chunks_before,
            chunks_after=self.chunks_after,
            causal=self.causal,
            key_mask=mask,
            **arguments,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "num_buckets": self.num_buckets,
            "chunk_length": self.chunk_length,
            "chunks_before": self.chunks_before,
            "chunks_after": self.chunks_after,
            "causal": self.causal,
        }


def _argmax(x):
    """The first of the largest of the last axis, in what runtimes have."""
    largest = ops.max(x, axis=-1, keepdims=True)
    place = ops.arange(x.shape[-1], dtype="int32")
    return ops.min(ops.where(x == largest, place, x.shape[-1]), axis=-1)


def _unit(query):
    """Keys of length 1, in float32; a zero vector has none and stays."""
    wide = wide_dtype(query)
    query = ops.cast(query, wide)
    mean = ops.mean(query * query, axis=-1, keepdims=True)
    return query * ops.rsqrt(mean + _EPSILON) * query.shape[-1] ** -0.5


def with_neighbours(clusters, before, after):
    """`Clusters` that hold their neighbours on the circle of all, too."""
    if not before and not after:
        return clusters
    num_heads, size = clusters.tokens.shape[1], clusters.size
    count = ops.shape(clusters.tokens)[2] // size
    index = ops.arange(count, dtype="int32")[:, None]
    index = index + ops.arange(-before, after + 1, dtype="int32")
    index = ops.reshape(index % count, (-1,))

    def widened(x):
        x = ops.reshape(x, (-1, num_heads, count, size))
        x = ops.take(x, index, axis=2)
        return ops.reshape(x, (-1, num_heads, ops.shape(index)[0] * size))

    present = clusters.present
    return Clusters(
        widened(clusters.tokens),
        None if present is None else widened(present),
        None,
        size * (before + 1 + after),
    )


def _factors(num_buckets):
    """Even integers, as a tuple; raises where they are none."""
    is_list = isinstance(num_buckets, list | tuple)
    factors = tuple(num_buckets) if is_list else (num_buckets,)
    numbers = [as_integer(factor) for factor in factors]
    if not numbers or any(n is None or n < 2 or n % 2 for n in numbers):
        raise ValueError(
            "num_buckets must be an even integer >= 2, or a list of them. "
            f"Received: num_buckets={num_buckets!r}"
        )
    return tuple(numbers)


def _check_rotations(rotations, num_heads, head_dim, factors):
    shape = tuple(rotations.shape)
    columns = sum(factors) // 2
    if len(shape) != 4 or (*shape[:2], shape[3]) != (
        num_heads,
        head_dim,
        columns,
    ):
        raise ValueError(
            "rotations must be (heads, size of a head, rounds, half of all "
            f"buckets). Received: rotations.shape={shape}, heads={num_heads}, "
            f"size of a head={head_dim}, num_buckets={list(factors)}"
        )
