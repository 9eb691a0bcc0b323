"""Sparse attention as one XLA program: static shapes, no loop over tokens.

Each kind of pattern has its own exact way to avoid the n x n product; none
needs more than its edges (padding of incomplete groups included).
"""

import numpy as np
from keras import ops

from ylg.ops.softmax import masked_softmax
from ylg.patterns import GroupPattern, NeighbourPattern, SummaryPattern


def attention(query, key, value, pattern, scale, return_weights):
    """Attention of all heads given over one pattern.

    Arguments and results as in `ylg.ops.reference.attention`.
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
    visible = None if np.all(pattern.visible) else pattern.visible
    if np.any(pattern.key_groups < 0):
        # Padding is seen by nobody, but for the groups' padding queries.
        present = (pattern.key_groups >= 0)[:, None, None]
        visible = ops.logical_and(present, pattern.visible)
    scores = ops.einsum("bgpnd,bgrnd->bgnpr", query, key)
    weights = masked_softmax(scores, scale, visible)
    output = ops.einsum(
        "bgnpr,bgrne->bgpne", ops.cast(weights, value.dtype), value
    )
    output = _ungrouped(output, pattern)
    if return_weights:
        weights = _ungrouped(ops.transpose(weights, (0, 1, 3, 2, 4)), pattern)
        return output, weights
    return output, None


def _summary_attention(query, key, value, pattern, scale, return_weights):
    """Scores with the M summary keys and with the own one: O(n_q M D)."""
    own_key = _rows(key, pattern.own)
    shared = ops.einsum(
        "bqnd,bmnd->bnqm", query, _rows(key, pattern.summary)
    )
    own = ops.transpose(ops.sum(query * own_key, axis=-1), (0, 2, 1))
    scores = ops.concatenate([shared, own[..., None]], axis=-1)
    # A query whose own key is a summary sees it once.
    visible = np.ones((len(pattern.own), len(pattern.summary) + 1), bool)
    visible[:, -1] = ~np.isin(pattern.own, pattern.summary)
    weights = masked_softmax(scores, scale, visible)
    parts = ops.cast(weights, value.dtype)
    output = ops.einsum(
        "bnqm,bmne->bqne", parts[..., :-1], _rows(value, pattern.summary)
    )
    share = ops.transpose(parts[..., -1:], (0, 2, 1, 3))
    output = output + share * _rows(value, pattern.own)
    if return_weights:
        return output, ops.transpose(weights, (0, 2, 1, 3))
    return output, None


def _neighbour_attention(query, key, value, pattern, scale, return_weights):
    """Gathered keys and values: O(n_q degree D), memory included."""
    key = _grouped(key, pattern.neighbours)
    value = _grouped(value, pattern.neighbours)
    scores = ops.einsum("bqnd,bqrnd->bqnr", query, key)
    weights = masked_softmax(
        scores, scale, (pattern.neighbours >= 0)[:, None]
    )
    output = ops.einsum(
        "bqnr,bqrne->bqne", ops.cast(weights, value.dtype), value
    )
    return output, weights if return_weights else None


_WAYS = {
    GroupPattern: _group_attention,
    SummaryPattern: _summary_attention,
    NeighbourPattern: _neighbour_attention,
}


def _grouped(x, groups):
    """(B, n, N, D) -> (B, *groups.shape, N, D); any token where padded."""
    rows = _rows(x, np.maximum(groups.ravel(), 0))
    return ops.reshape(rows, (-1, *groups.shape, *x.shape[2:]))


def _ungrouped(x, pattern):
    """(B, G, P, N, E) -> (B, n_q, N, E)."""
    flat = ops.reshape(x, (-1, pattern.query_groups.size, *x.shape[3:]))
    return _rows(flat, pattern.query_slots)


def _rows(x, index):
    """x[:, index], without a copy where that is all of it in order."""
    if np.array_equal(index, np.arange(x.shape[1])):
        return x
    return ops.take(x, index, axis=1)
