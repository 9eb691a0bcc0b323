"""Masked dense attention: what every fast path must equal.

Forms all n_q x n_k scores, O(n_q n_k) time and memory: for tests and small
grids only.
"""

import numpy as np
from keras import ops

from kanets.attention.core import attend


def attention(query, key, value, pattern, scale, return_weights):
    """Attention of all heads given over one pattern.

    Args:
        query: (B, N, n_q, D).
        key: (B, N, n_k, D).
        value: (B, N, n_k, E).
        pattern: `Pattern`.
        scale: float.
        return_weights: whether the weights are wanted, too.

    Returns:
        Output (B, N, n_q, E) and weights (B, N, n_q, degree) in the layout
        of `pattern.neighbours`, or None.
    """
    output, weights = attend(
        query,
        key,
        value,
        pattern.mask(),
        scale=scale,
        rows_may_be_empty=pattern.has_empty_rows,
    )
    if not return_weights:
        return output, None
    index = np.maximum(pattern.neighbours, 0)[None, None]
    sparse = ops.take_along_axis(weights, index, axis=3)
    return output, ops.where(pattern.neighbours >= 0, sparse, 0.0)
