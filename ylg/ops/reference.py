"""Masked dense attention: what every fast path must equal.

Forms all n_q x n_k scores, O(n_q n_k) time and memory: for tests and small
grids only.
"""

import numpy as np
from keras import ops

from ylg.ops.softmax import masked_softmax


def attention(query, key, value, pattern, scale, return_weights):
    """Attention of all heads given over one pattern.

    Args:
        query: (B, n_q, N, D).
        key: (B, n_k, N, D).
        value: (B, n_k, N, E).
        pattern: `ylg.patterns.Pattern`.
        scale: float.
        return_weights: whether the weights are wanted, too.

    Returns:
        Output (B, n_q, N, E) and weights (B, n_q, N, degree) in the layout
        of `pattern.neighbours`, or None.
    """
    scores = ops.einsum("bqnd,bknd->bnqk", query, key)
    weights = masked_softmax(scores, scale, pattern.mask())
    output = ops.einsum(
        "bnqk,bkne->bqne", ops.cast(weights, value.dtype), value
    )
    if not return_weights:
        return output, None
    index = np.maximum(pattern.neighbours, 0)[None, None]
    sparse = ops.take_along_axis(weights, index, axis=3)
    sparse = ops.where(pattern.neighbours >= 0, sparse, 0.0)
    return output, ops.transpose(sparse, (0, 2, 1, 3))
