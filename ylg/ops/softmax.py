"""Scores and softmax in float32, safe whatever the precision of the inputs."""

import numpy as np
from keras import ops

HIDDEN = float(np.finfo("float32").min)


def scores(equation, query, key, scale):
    """Products of queries and keys, times `scale`, in float32.

    In float16 a product of large queries and keys would overflow.

    Args:
        equation: of `keras.ops.einsum`.
        query, key: tensors of any float dtype.
        scale: float.

    Returns:
        float32 tensor.
    """
    query = ops.cast(query, "float32")
    return ops.einsum(equation, query, ops.cast(key, "float32")) * scale


def masked_softmax(scores, visible=None, rows_may_be_empty=False):
    """Weights over the last axis, in float32.

    Args:
        scores: float32 (..., K).
        visible: bool array that broadcasts to the scores, or None for all.
        rows_may_be_empty: whether rows that see nothing matter. They get
            zeros then, otherwise anything that is finite.

    Returns:
        float32 tensor of the shape of `scores`.
    """
    if visible is None:
        return _softmax(scores)
    weights = _softmax(ops.where(visible, scores, HIDDEN))
    if not rows_may_be_empty:
        return weights
    return ops.where(visible, weights, 0.0)


def _softmax(scores):
    if scores.shape[-1] == 1:  # Keras warns, rightly, that these are ones
        return ops.ones_like(scores)
    return ops.softmax(scores, axis=-1)
