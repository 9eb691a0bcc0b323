"""Exact attention over sparsity patterns, one or one for each head."""

import numpy as np
from keras import ops

from kanets.attention.checks import logit_scale
from kanets.attention.implementations import NAMES as IMPLEMENTATIONS
from kanets.attention.implementations import check, chosen, why_no_kernel
from kanets.attention.kernels import reference, xla
from kanets.attention.pattern_kinds import Pattern


def pattern_attention(
    query,
    key,
    value,
    patterns,
    scale=1.0,
    implementation="auto",
    return_weights=False,
):
    """Attention of each query over the keys that its pattern shows.

        output[i] = sum over j in pattern(i) of w[i, j] value[j]
        w[i, :] = softmax over j in pattern(i) of scale * <query[i], key[j]>

    Equal to dense attention under the patterns' masks, forward and in the
    gradient. Scores and softmax are in float32 whatever the dtype.

    Args:
        query: float tensor (B, n_q, N, D).
        key: float tensor (B, n_k, N, D).
        value: float tensor (B, n_k, N, E); E need not be D.
        patterns: a `Pattern` for all heads, or a list of N.
        scale: factor of the scores: a number (1.0, as in SAGAN, is not the
            1 / sqrt(D) of Transformers), "rsqrt" for 1 / sqrt(D), or None
            for no factor.
        implementation: "xla", "pallas" (JAX alone: kernels that keep the
            scores on the chip), "reference" (masked dense, O(n_q n_k)) or
            "auto", what `kanets.attention.implementation` has set.
        return_weights: if True, also return the attention weights.

    Returns:
        (B, n_q, N, E) of the dtype of `value`. With `return_weights`, a pair
        of it and a list of N float32 tensors (B, n_q, degree of the head's
        pattern), in the layout of `pattern.neighbours`; see `dense_weights`.

    Raises:
        ValueError: shapes that do not fit each other or the patterns, a
            `scale` of another kind, an unknown implementation, or "pallas" on
            a backend other than JAX.

    Cost: time and memory O(edges (D + E)), which is O(n sqrt n (D + E)) for
    those of `kanets.attention.patterns`. With "pallas", memory O(n (D + E)).

    Example:

    >>> patterns = kanets.attention.patterns.ylg_heads((64, 64))
    >>> x = keras.random.normal((1, 64 * 64, 8, 16))
    >>> y = pattern_attention(x, x, x, patterns)  # (1, 4096, 8, 16)

    References:
        - [Daras et al., CVPR 2020](https://arxiv.org/abs/1911.12287),
          sections 3.2 and 3.3
    """
    check(implementation)
    query, key, value = map(ops.convert_to_tensor, (query, key, value))
    how = chosen(implementation, IMPLEMENTATIONS, why_no_kernel(query))
    patterns = _check(query, key, value, patterns)
    scale = logit_scale(scale, query.shape[3])
    attend = _pallas if how == "pallas" else _ATTEND[how]
    # Heads before tokens: then each head's tokens lie together.
    query, key, value = (
        ops.transpose(x, (0, 2, 1, 3)) for x in (query, key, value)
    )
    outputs, order, weights = [], [], {}
    # Heads that share a pattern are computed together.
    for pattern in dict.fromkeys(patterns):
        heads = [i for i, p in enumerate(patterns) if p is pattern]
        output, weight = attend(
            *(_heads(x, heads) for x in (query, key, value)),
            pattern,
            scale,
            return_weights,
        )
        outputs.append(output)
        order += heads
        if return_weights:
            weights |= {h: weight[:, i] for i, h in enumerate(heads)}
    output = outputs[0] if len(outputs) == 1 else ops.concatenate(outputs, 1)
    output = _heads(output, [order.index(h) for h in range(len(patterns))])
    output = ops.transpose(output, (0, 2, 1, 3))
    if not return_weights:
        return output
    return output, [weights[head] for head in range(len(patterns))]


def dense_weights(weights, patterns):
    """Sparse attention weights as matrices, for looking at them.

    Args:
        weights: the N tensors (B, n_q, degree) of `pattern_attention`.
        patterns: the patterns given to it.

    Returns:
        float32 tensor (B, N, n_q, n_k), O(n_q n_k) memory.
    """
    if isinstance(patterns, Pattern):
        patterns = [patterns] * len(weights)
    heads = [
        _dense(weight, pattern)
        for weight, pattern in zip(weights, patterns, strict=True)
    ]
    return ops.stack(heads, axis=1)


_ATTEND = {"xla": xla.attention, "reference": reference.attention}


def _pallas(*arguments):
    from kanets.attention.kernels import pallas  # which imports JAX

    return pallas.attention(*arguments)


def _dense(weight, pattern):
    """(B, n_q, degree) -> (B, n_q, n_k)."""
    queries, keys = pattern.num_queries, pattern.num_keys
    cells = np.arange(queries)[:, None] * keys + pattern.neighbours
    # One cell more than there are, for the padding.
    cells = np.where(pattern.neighbours < 0, queries * keys, cells)
    flat = ops.transpose(ops.reshape(weight, (-1, cells.size)))
    dense = ops.segment_sum(
        flat, cells.ravel(), num_segments=queries * keys + 1
    )
    return ops.reshape(ops.transpose(dense[:-1]), (-1, queries, keys))


def _heads(x, heads):
    """x[:, heads], without a copy where that is all of it in order."""
    if heads == list(range(x.shape[1])):
        return x
    return ops.take(x, heads, axis=1)


def _check(query, key, value, patterns):
    shapes = [tuple(x.shape) for x in (query, key, value)]
    received = "Received: query={}, key={}, value={}".format(*shapes)
    if any(len(shape) != 4 or None in shape[1:] for shape in shapes):
        raise ValueError(
            "query, key and value must be (batch, tokens, heads, size) with "
            f"fixed tokens, heads and size. {received}"
        )
    (_, queries, heads, size), (_, keys, *rest), (_, *values) = shapes
    if rest != [heads, size] or values[:2] != [keys, heads]:
        raise ValueError(
            "query and key must agree in heads and size, key and value in "
            f"tokens and heads. {received}"
        )
    is_one = isinstance(patterns, Pattern)
    patterns = [patterns] * heads if is_one else list(patterns)
    if len(patterns) != heads:
        raise ValueError(
            "patterns must be one pattern, or a list of one for each head. "
            f"Received: {len(patterns)} patterns, {heads} heads"
        )
    for pattern in patterns:
        if (pattern.num_queries, pattern.num_keys) != (queries, keys):
            raise ValueError(
                "Each pattern must be of the queries' and keys' number of "
                f"tokens. Received: {pattern!r}, {queries} queries, "
                f"{keys} keys"
            )
    return patterns
