"""Sparse attention as one XLA program: static shapes, no loop over tokens.

Each kind of pattern has its own exact way to avoid the n x n product; none
needs more than its edges (padding of incomplete groups included).
"""

import keras
import numpy as np
from keras import ops

from kanets.attention.core import attend, hidden, scores
from kanets.attention.pattern_kinds import (
    GroupPattern,
    NeighbourPattern,
    SummaryPattern,
)


def attention(query, key, value, pattern, scale, return_weights):
    """Attention of all heads given over one pattern.

    Arguments and results as in `reference.attention`.
    """
    for kind, function in _WAYS.items():
        if isinstance(pattern, kind):
            return function(query, key, value, pattern, scale, return_weights)
    raise TypeError(
        f"No way to compute over this pattern. Received: {pattern!r}"
    )


def _group_attention(query, key, value, pattern, scale, return_weights):
    """Batched small products, one for each group: O(G P R D)."""
    query = _grouped(query, pattern.query_groups)
    key = _grouped(key, pattern.key_groups)
    value = _grouped(value, pattern.key_groups)
    visible = None if pattern.sees_all else pattern.visible
    if np.any(pattern.key_groups < 0):
        # Padding is seen by nobody, but for the groups' padding queries.
        present = (pattern.key_groups >= 0)[:, None]
        visible = ops.logical_and(present, pattern.visible)
    output, weights = attend(
        query,
        key,
        value,
        visible,
        scale=scale,
        rows_may_be_empty=pattern.has_empty_rows,
    )
    output = _ungrouped(output, pattern)
    return output, _ungrouped(weights, pattern) if return_weights else None


def _summary_attention(query, key, value, pattern, scale, return_weights):
    """Scores with the M summary keys and with the own one: O(n_q M D)."""
    summary, own = pattern.summary, pattern.own
    shared = scores(query, _rows(key, summary), scale)
    # A product of matrices of one by one would be slow.
    query, keys = (ops.cast(t, shared.dtype) for t in (query, _rows(key, own)))
    single = ops.sum(query * keys, axis=-1, keepdims=True) * scale
    # A query whose own key is a summary sees it once.
    is_summary = np.isin(own, summary)[:, None]
    single = ops.where(is_summary, hidden(), single)
    # Softmax over both parts, which are never copied into one.
    largest = ops.maximum(ops.max(shared, axis=-1, keepdims=True), single)
    largest = ops.stop_gradient(largest)
    shared, single = ops.exp(shared - largest), ops.exp(single - largest)
    total = ops.sum(shared, axis=-1, keepdims=True) + single
    # Few values are divided after the product; in half precision, where a
    # sum of many could overflow, the weights are.
    dtype = keras.backend.standardize_dtype(value.dtype)
    is_wide = dtype in ("float32", "float64")
    if return_weights or not is_wide:
        shared, single, total = shared / total, single / total, None
    output = ops.matmul(ops.cast(shared, value.dtype), _rows(value, summary))
    output = output + ops.cast(single, value.dtype) * _rows(value, own)
    output = output if total is None else output / total
    if not return_weights:
        return output, None
    return output, ops.concatenate([shared, single], axis=-1)


def _neighbour_attention(query, key, value, pattern, scale, return_weights):
    """Gathered keys and values: O(n_q degree D), memory included."""
    key = _grouped(key, pattern.neighbours)
    value = _grouped(value, pattern.neighbours)
    output, weights = attend(
        query[..., None, :],
        key,
        value,
        (pattern.neighbours >= 0)[:, None],
        scale=scale,
        rows_may_be_empty=pattern.has_empty_rows,
    )
    return output[..., 0, :], weights[..., 0, :] if return_weights else None


_WAYS = {
    GroupPattern: _group_attention,
    SummaryPattern: _summary_attention,
    NeighbourPattern: _neighbour_attention,
}


def _grouped(x, groups):
    """(B, N, n, D) -> (B, N, *groups.shape, D); any token where padded."""
    rows = _rows(x, np.maximum(groups.ravel(), 0))
    return ops.reshape(rows, (-1, x.shape[1], *groups.shape, x.shape[3]))


def _ungrouped(x, pattern):
    """(B, N, G, P, E) -> (B, N, n_q, E)."""
    slots = pattern.query_groups.size
    flat = ops.reshape(x, (-1, x.shape[1], slots, x.shape[4]))
    return _rows(flat, pattern.query_slots)


def _rows(x, index):
    """x[:, :, index], without a copy where that is all of it in order."""
    if np.array_equal(index, np.arange(x.shape[2])):
        return x
    return ops.take(x, index, axis=2)
