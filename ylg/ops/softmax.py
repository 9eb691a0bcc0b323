"""Softmax over the keys that are visible, safe in half precision."""

import numpy as np
from keras import ops

HIDDEN = float(np.finfo("float32").min)


def masked_softmax(scores, scale, visible=None, rows_may_be_empty=False):
    """Weights over the last axis, in float32.

    Args:
        scores: (..., K), any float dtype.
        scale: float, multiplies the scores in float32.
        visible: bool array that broadcasts to the scores, or None for all.
        rows_may_be_empty: whether rows that see nothing matter. They get
            zeros then, otherwise anything that is finite.

    Returns:
        float32 tensor of the shape of `scores`.
    """
    scores = ops.cast(scores, "float32") * scale
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
