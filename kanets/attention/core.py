"""Attention between two sets of tokens: what every mechanism is made of.

One rule for all: scores and softmax run in float32 (or float64, if that is
what comes and Keras multiplies in it, as on TensorFlow), whatever the
precision of the inputs, since products of float16 overflow and bfloat16 would
round logits by 2^-8, which the exponential multiplies. What a query does not
see has the least score there is.

Letters: B batch, N heads, Q queries, K keys, D and E sizes of a head. Heads
stand before tokens, so that a head's tokens lie together; a single head has
no axis, which saves a dozen nodes of a graph (`benchmarks/NOTES.md`).
"""

import contextlib
import contextvars

import keras
import numpy as np
from keras import ops

from kanets.attention.checks import logit_scale

HIDDEN = float(np.finfo("float32").min)
_HIDDEN_IN_INTEGERS = -32.0
_hidden = contextvars.ContextVar("hidden", default=HIDDEN)


def hidden():
    """The score of what is hidden, as operators are called now."""
    return _hidden.get()


@contextlib.contextmanager
def hiding_in_integers():
    """Within, operators hide by a score that 8-bit integers can hold.

    They have one scale for all scores: beside the least float32 all that are
    seen would be 0. What is seen should be well above -32, then.
    """
    token = _hidden.set(_HIDDEN_IN_INTEGERS)
    try:
        yield
    finally:
        _hidden.reset(token)


def scores(query, key, scale=1.0):
    """Products of queries and keys, times `scale`, in float32.

    Args:
        query: tensor (..., Q, D) of any float dtype.
        key: tensor (..., K, D).
        scale: float.

    Returns:
        Tensor (..., Q, K), float32 or wider.
    """
    wide = wide_dtype(query, key)
    query, key = ops.cast(query, wide), ops.cast(key, wide)
    if scale != 1.0:
        query = query * ops.cast(scale, wide)
    return ops.matmul(query, ops.swapaxes(key, -1, -2))


def masked_softmax(scores, visible=None, rows_may_be_empty=False):
    """Weights over the last axis, in the dtype of the scores.

    Args:
        scores: float32 (..., K).
        visible: bool, broadcasts to the scores, or None for all.
        rows_may_be_empty: whether rows that see nothing matter. They get
            zeros then, otherwise anything that is finite.

    Returns:
        Tensor of the shape of `scores`.
    """
    if visible is None:
        return _softmax(scores)
    weights = _softmax(ops.where(visible, scores, hidden()))
    if not rows_may_be_empty:
        return weights
    return ops.where(visible, weights, 0.0)


def attend(
    query,
    key,
    value,
    visible=None,
    bias=None,
    scale=1.0,
    rows_may_be_empty=False,
):
    """Softmax attention of every query over the keys it sees.

    Args:
        query: tensor (..., Q, D): (B, Q, D), (B, N, Q, D), or in groups.
        key: tensor (..., K, D).
        value: tensor (..., K, E).
        visible: bool, broadcasts to (..., Q, K), or None for all.
        bias: added to the scores, broadcasts to them; or None.
        scale: float, factor of the scores.
        rows_may_be_empty: as in `masked_softmax`.

    Returns:
        Output (..., Q, E) in the dtype of `value`, and the weights
        (..., Q, K) in float32.

    Cost: O(Q K (D + E)) time, O(Q K) memory, times what stands before.
    """
    logits = scores(query, key, scale)
    if bias is not None:
        logits = logits + ops.cast(bias, logits.dtype)
    weights = masked_softmax(logits, visible, rows_may_be_empty)
    return ops.matmul(ops.cast(weights, value.dtype), value), weights


def attention(query, key, value, num_heads=1, scale=None, key_mask=None):
    """Softmax attention between two sets of tokens, heads in the channels.

    Head n holds the n-th of N equal, contiguous groups of channels.

    Args:
        query: tensor (B, Q, C).
        key: tensor (B, K, C).
        value: tensor (B, K, V).
        num_heads: N, a divisor of C and V.
        scale: factor of the logits; None is no factor (the paper's form),
            "rsqrt" is 1/sqrt(C/N).
        key_mask: optional bool tensor (B, K), True where a key may be used.

    Returns:
        Output (B, Q, V) in the dtype of `value`, and the attention weights
        (B, N, Q, K), in float32 as the logits.

    Raises:
        ValueError: `num_heads` does not divide C and V, or `scale` is
            neither None, "rsqrt" nor a number.

    Cost: O(Q·K·C) time, O(N·Q·K) memory.
    """
    head_dim = check_heads(query.shape[-1], value.shape[-1], num_heads)
    query, key, value = (split_heads(t, num_heads) for t in (query, key, value))
    if key_mask is not None:
        ones = [1] * (len(query.shape) - 2)
        shape = (-1, *ones, ops.shape(key)[-2])
        key_mask = ops.reshape(ops.cast(key_mask, "bool"), shape)
    output, weights = attend(
        query, key, value, key_mask, scale=logit_scale(scale, head_dim)
    )
    if num_heads == 1:
        return output, weights[:, None]
    return merge_heads(output), weights


def split_heads(tensor, num_heads):
    """(B, T, N·D) -> (B, N, T, D), or as it is where N is 1."""
    if num_heads == 1:
        return tensor
    length = ops.shape(tensor)[1]
    head_dim = tensor.shape[-1] // num_heads
    tensor = ops.reshape(tensor, (-1, length, num_heads, head_dim))
    return ops.transpose(tensor, (0, 2, 1, 3))


def merge_heads(tensor):
    """(B, N, T, D) -> (B, T, N·D)."""
    _, num_heads, length, head_dim = ops.shape(tensor)
    tensor = ops.transpose(tensor, (0, 2, 1, 3))
    return ops.reshape(tensor, (-1, length, num_heads * head_dim))


def unit_length(x, axis):
    """Vectors along an axis, of length 1, in float32 or wider.

    Zeros, and what is shorter than 1e-12, stay about zero, and so does their
    gradient.
    """
    x = ops.cast(x, wide_dtype(x))
    square = ops.sum(ops.square(x), axis=axis, keepdims=True)
    square = ops.where(square > 1e-24, square, ops.ones_like(square))
    return x * ops.rsqrt(square)


def wide_dtype(*tensors):
    """float32, or float64 of such tensors, where the backend has it."""
    return wide_of(*(tensor.dtype for tensor in tensors))


def wide_of(*dtypes):
    """As `wide_dtype`, of the dtypes themselves."""
    return keras.backend.result_type(*dtypes, "float32")


def check_heads(channels, value_channels, num_heads):
    """D, the channels of a head; raises where heads do not divide them."""
    if num_heads < 1 or channels % num_heads or value_channels % num_heads:
        raise ValueError(
            "num_heads must divide the channels of queries and values. "
            f"Received: num_heads={num_heads}, channels={channels}, "
            f"value channels={value_channels}"
        )
    return channels // num_heads


def _softmax(scores):
    if scores.shape[-1] == 1:  # Keras warns, rightly, that these are ones
        return ops.ones_like(scores)
    return ops.softmax(scores, axis=-1)
