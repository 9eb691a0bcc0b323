"""Attention within clusters of tokens: what all hashed attention shares.

A mechanism sorts its tokens, once for each round, by a hash that brings
together what belongs together, and cuts the list into clusters of equal size.
Queries see the keys of their own cluster alone. A query that was hashed R
times found R answers, which are weighed by the sums of exponentials below
them, as if all keys of all rounds had been in one softmax.

Letters: B batch, N heads, T tokens, Q queries, K keys, D and E sizes of a
head, R rounds, S slots of all rounds, G clusters of all rounds, P slots of a
cluster.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from kanets.attention.base import GridAttention
from kanets.attention.checks import check_bool, check_positive, check_seed
from kanets.attention.core import hidden, scores, split_heads
from kanets.attention.grid import (
    cells,
    check_mask,
    flatten,
    mapped_attention,
    unflatten,
)

ITSELF = -1e5


class Clusters(NamedTuple):
    """Which token is where, in the clusters of all rounds.

    Attributes:
        tokens: int32 (B, N, S), the token in each slot: first those of the
            first round, cluster by cluster. Where nothing is present, any
            number.
        present: bool (B, N, S), whether a token that counts is there; None
            where that is so in all slots.
        slots: int32 (B, N, R, T), the slot of each token in each round.
        size: P.
    """

    tokens: Any
    present: Any
    slots: Any
    size: Any


def cluster_attention(
    query,
    key,
    value,
    queries,
    keys,
    scale=1.0,
    causal=False,
    itself_last=False,
    return_attention_scores=False,
):
    """Softmax attention of the queries of each cluster over its keys.

    Args:
        query: float tensor (B, N, Q, D).
        key: float tensor (B, N, K, D).
        value: float tensor (B, N, K, E).
        queries, keys: `Clusters` of them, of the same number G. A key that is
            in several clusters of a query, or several times in one, counts
            each time.
        scale: float, factor of the logits.
        causal: whether keys after a query are hidden from it.
        itself_last: whether a token sees itself only where it sees nothing
            else.
        return_attention_scores: also return the weights.

    Returns:
        Output (B, N, Q, E) in the dtype of `value`, zero for a query that
        sees no key; and the weights (B, N, Q, K) in float32, or None.

    Cost: O(S (D + E) P') time, P' the slots of a cluster of keys, and O(S P')
    memory; with the weights O(Q K) memory.
    """
    num_heads, width = query.shape[1], value.shape[-1]
    logits = scores(
        _grouped(query, queries), _grouped(key, keys), scale
    )  # (B N G, P, P')
    logits = _hide(logits, queries, keys, causal, itself_last)
    largest = ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
    weights = ops.exp(logits - largest)
    total = ops.sum(weights, axis=-1, keepdims=True)
    weights = weights / total
    found = ops.matmul(ops.cast(weights, value.dtype), _grouped(value, keys))

    rounds, tokens = ops.shape(queries.slots)[2:]
    found, below = (
        ops.reshape(
            _rows(
                ops.reshape(x, (-1, num_heads, _length(queries), size)),
                ops.reshape(queries.slots, (-1, num_heads, rounds * tokens)),
            ),
            (-1, rounds, tokens, size),
        )
        for x, size in (
            (found, width),
            (ops.concatenate([largest, total], axis=-1), 2),
        )
    )
    shares = _shares(below[..., :1], below[..., 1:], keys)
    output = ops.sum(shares * ops.cast(found, shares.dtype), axis=1)
    output = ops.reshape(output, (-1, num_heads, tokens, width))
    output = ops.cast(output, value.dtype)
    if not return_attention_scores:
        return output, None
    shape = (num_heads, tokens, ops.shape(key)[2])
    return output, _scattered(weights, shares, queries, keys, shape)


def split(tensor, num_heads):
    """(B, T, N·D) -> (B, N, T, D)."""
    tensor = split_heads(tensor, num_heads)
    return tensor[:, None] if num_heads == 1 else tensor


def sort(hashes):
    """The order that sorts each row, and the rank of each item in it.

    Args:
        hashes: float or int tensor (..., T).

    Returns:
        Two int32 tensors (..., T).
    """
    order = ops.cast(ops.argsort(hashes, axis=-1), "int32")
    return order, ops.cast(ops.argsort(order, axis=-1), "int32")


def check_sortable(groups, tokens):
    """Raises a ValueError where the places of tokens would pass int32."""
    if isinstance(tokens, int) and groups * (tokens + 1) >= 2**31:
        raise ValueError(
            "Buckets or clusters times tokens must be below 2**31. "
            f"Received: {groups} of {tokens} tokens"
        )


def picked(tensor, index):
    """tensor[..., index], for an index of its own for each row.

    Args:
        tensor: (B, N, R, T).
        index: int tensor that broadcasts to (B, N, R, S).

    Returns:
        Tensor (B, N, R, S).
    """
    shape = (*ops.shape(tensor)[:3], ops.shape(index)[-1])
    index = ops.broadcast_to(index, shape)
    lined = ops.reshape(tensor, (-1, 1, ops.shape(tensor)[3], 1))
    index = ops.reshape(index, (-1, 1, shape[-1]))
    return ops.reshape(_rows(lined, index), (-1, *shape[1:]))


class HashedAttention(GridAttention):
    """Attention of a grid's cells within clusters that random hashes make.

    A mechanism overrides `hash_shape` and `clustered`.

    Args:
        num_rounds: R.
        fresh_hashes: whether each call in training draws its own hashes.
            Those in inference are weights, drawn once and saved.
        seed: int, of both; None for another one each time.
    """

    def __init__(self, num_rounds, fresh_hashes=True, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.num_rounds = check_positive(num_rounds=num_rounds)
        self.fresh_hashes = check_bool(fresh_hashes=fresh_hashes)
        self.seed = check_seed(seed)
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    def hash_shape(self, head_dim):
        """The shape of a set of hashes for heads of a size."""
        raise NotImplementedError

    def clustered(self, query, key, value, hashes, mask, **arguments):
        """The operator on tokens (B, T, C), with the hashes given."""
        raise NotImplementedError

    def build(self, input_shape):
        super().build(input_shape)
        self.input_spec = keras.layers.InputSpec(
            min_ndim=3, axes={-1: input_shape[-1]}
        )
        head_dim = self.key_dim
        if head_dim is None:
            head_dim = input_shape[-1] // self.num_heads
        self.hashes = self.add_weight(
            shape=self.hash_shape(head_dim),
            # Not the numbers that the first call in training draws.
            initializer=keras.initializers.RandomNormal(
                stddev=1.0, seed=None if self.seed is None else self.seed + 1
            ),
            trainable=False,
            autocast=False,  # half precision would round them
            name="hashes",
        )

    def attend(self, inputs, mask, training, return_attention_scores):
        self.check_inputs(inputs, mask)
        if training and self.fresh_hashes:
            hashes = keras.random.normal(
                self.hashes.shape, dtype="float32", seed=self.seed_generator
            )
        else:
            hashes = ops.convert_to_tensor(self.hashes)
        tokens, seen = flatten(inputs), None
        if mask is not None:
            mask = check_mask(mask, inputs)
            seen = ops.reshape(mask, (-1, cells(ops.shape(inputs)[1:-1])))

        def attend(query, key, value, num_heads, scale, mask):
            found = self.clustered(
                query,
                key,
                value,
                hashes,
                mask,
                num_heads=num_heads,
                scale=scale,
                return_attention_scores=return_attention_scores,
            )
            return found if return_attention_scores else (found, None)

        maps = [self._maps.get(self.map_names.get(m)) for m in "qkvo"]
        result, weights = mapped_attention(
            tokens, tokens, maps, self.num_heads, self.scale, seen, attend
        )
        result = unflatten(result, inputs, mask)
        return (result, weights) if return_attention_scores else result

    def _token_counts(self, grid):
        return cells(grid), cells(grid)

    def _maps_at(self, scores, cell, grid):
        keys = scores[:, :, cell[0] * grid[1] + cell[1]]
        return keys.reshape(*keys.shape[:2], *grid)

    def get_config(self):
        return {
            **super().get_config(),
            "num_rounds": self.num_rounds,
            "fresh_hashes": self.fresh_hashes,
            "seed": self.seed,
        }


def _hide(logits, queries, keys, causal, itself_last):
    """Scores (B N G, P, P') where what a query does not see is hidden."""
    if keys.present is not None:
        present = ops.reshape(keys.present, (-1, 1, keys.size))
        logits = ops.where(present, logits, hidden())
    if not causal and not itself_last:
        return logits
    at = ops.reshape(queries.tokens, (-1, queries.size, 1))
    seen = ops.reshape(keys.tokens, (-1, 1, keys.size))
    if causal:
        logits = ops.where(seen > at, hidden(), logits)
    if not itself_last:
        return logits
    return ops.where(seen == at, max(ITSELF, 0.75 * hidden()), logits)


def _shares(largest, total, keys):
    """What each round counts for a query, (B N, R, Q, 1).

    Largest scores and sums, not logarithms: at -1e5, float32 has no place
    for the logarithm of a sum.
    """
    top = ops.max(largest, axis=1, keepdims=True)
    shares = total * ops.exp(largest - top)
    shares = shares / ops.sum(shares, axis=1, keepdims=True)
    if keys.present is None:
        return shares
    return ops.where(top > hidden(), shares, 0.0)


def _scattered(weights, shares, queries, keys, shape):
    """The weights of all rounds as matrices (B, N, Q, K), for looking."""
    num_heads, num_queries, num_keys = shape
    slots = _length(queries)
    rounds = ops.shape(shares)[1]
    at = ops.minimum(queries.tokens, num_queries - 1)
    seen = ops.minimum(keys.tokens, num_keys - 1)
    round_of = ops.arange(slots) // (slots // rounds)
    shares = ops.reshape(shares, (-1, num_heads, rounds * num_queries, 1))
    counts = _rows(shares, at + round_of * num_queries)
    if queries.present is not None:
        present = ops.reshape(queries.present, (-1, 1))
        counts = ops.where(present, counts, 0.0)
    weights = weights * ops.reshape(counts, (-1, queries.size, 1))
    lines = ops.shape(queries.tokens)[0] * num_heads
    first = ops.reshape(ops.arange(lines), (-1, num_heads, 1)) * num_queries
    rows = ops.reshape(first + at, (-1, queries.size, 1))
    columns = ops.reshape(seen, (-1, 1, keys.size))
    flat = ops.segment_sum(
        ops.reshape(weights, (-1,)),
        ops.reshape(rows * num_keys + columns, (-1,)),
        num_segments=lines * num_queries * num_keys,
    )
    return ops.reshape(flat, (-1, *shape))


def _grouped(x, clusters):
    """(B, N, T, D) -> (B N G, P, D)."""
    rows = _rows(x, ops.minimum(clusters.tokens, ops.shape(x)[2] - 1))
    return ops.reshape(rows, (-1, clusters.size, x.shape[-1]))


def _rows(x, index):
    """x[b, n, index[b, n]]: (B, N, T, D) and (B, N, S) -> (B N S, D).

    By one index for all: that needs no operator which runtimes lack.
    """
    batch, num_heads, length, size = ops.shape(x)
    first = ops.arange(batch * num_heads, dtype="int32") * length
    index = ops.reshape(index, (-1, ops.shape(index)[2])) + first[:, None]
    lined = ops.reshape(x, (-1, size))
    return ops.take(lined, ops.reshape(index, (-1,)), axis=0)


def _length(clusters):
    return ops.shape(clusters.tokens)[2]
