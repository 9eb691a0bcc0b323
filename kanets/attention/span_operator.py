"""Attention within a reach, masked by spans: the operator of adaptive spans.

See `adaptive_span` for the paper and the layer. Keys further away than the
reach are not computed: grids are cut into `tiles`.

Letters: B batch, N heads, C channels, D size of a head, n cells, T positions
of a sequence, P those that came before, R ramp.
"""

import math

from keras import ops

from kanets.attention.checks import logit_scale
from kanets.attention.core import (
    check_heads,
    masked_softmax,
    merge_heads,
    scores,
    split_heads,
)
from kanets.attention.grid import (
    check_mask,
    flatten,
    grid_axes,
    mapped_attention,
    unflatten,
)
from kanets.attention.relative import relative_scores, relative_sums
from kanets.attention.tiles import (
    cut,
    distances,
    rows,
    tiles,
    untile,
    visible_keys,
    windows,
)

EPSILON = 1e-8  # the authors', beside the sum of what the mask leaves


def span_mask(distance, span, ramp):
    """m_z(x): 1 within the span, 0 beyond the ramp, linear between.

    Args:
        distance: x, number or tensor.
        span: z, tensor that broadcasts to it.
        ramp: R.

    Returns:
        float32 tensor. Its gradient is 1/R on the ramp, both ends of it
        included, and 0 elsewhere, on all backends.
    """
    distance = ops.cast(distance, "float32")
    return unit((ops.cast(span, "float32") - distance) / ramp + 1.0)


def adaptive_span_attention(
    x,
    num_heads=1,
    scale=None,
    mask=None,
    query=None,
    key=None,
    value=None,
    output=None,
    return_attention_scores=False,
    reach=None,
    span=None,
    ramp=1,
    relative_keys=None,
    relative_values=None,
    causal=None,
    context=None,
    context_mask=None,
):
    """Attention of cells to the cells within a reach, masked by a span.

    Args:
        x, num_heads, scale, mask, query, key, value, output,
            return_attention_scores: as in `kao_kv`. With scores everything
            is computed, O(n²): for looking.
        reach: the greatest distance that is computed, int; None for all.
            The cost is that of the reach.
        span: z in cells, float tensor (N,) or, of each cell, (B, *grid, N);
            None for all that is within reach.
        ramp: R, in cells.
        relative_keys, relative_values: None, or `RelativePositions`, one an
            axis.
        causal: None, or, of sequences, the greatest offset that is seen: 0
            for a position's own and what came before, -1 for the latter
            alone. The distance is counted from there.
        context: of causal attention (B, P + T, C), the P positions that came
            before and the T of `x`, of which keys and values are made.
        context_mask: bool (B, P + T), True where there is something.

    Returns:
        Tensor (B, *grid, C'), dtype of `x`; with `return_attention_scores` a
        pair of it and the weights (B, N, n, keys) in float32, whose rows are
        zero where nothing is seen.

    Raises:
        ValueError: bad rank, mask, `num_heads` or `scale`, as in `kao_kv`.

    Cost: O(n (2 reach + 1)^axes C) time and, times N / C, memory, within a
    small factor for keys that tiles share; dense at most.
    """
    grid_axes(x)
    keys = x if context is None else context
    if mask is not None:
        mask = check_mask(mask, x)
    if context is None:
        context_mask = mask
    axes = cut(x, keys, reach, causal, whole=return_attention_scores)

    def attend(query, key, value, num_heads, scale, key_mask):
        check_heads(query.shape[-1], value.shape[-1], num_heads)
        return _attend(
            [
                _heads(tokens, like, num_heads)
                for tokens, like in ((query, x), (key, keys), (value, keys))
            ],
            axes,
            num_heads,
            logit_scale(scale, query.shape[-1] // num_heads),
            visible_keys(axes, keys, key_mask, reach, causal),
            None if span is None else _ramp(axes, span, ramp, causal),
            (relative_keys, relative_values),
        )

    result, weights = mapped_attention(
        flatten(x),
        flatten(keys),
        (query, key, value, output),
        num_heads,
        scale,
        context_mask,
        attend,
    )
    result = unflatten(result, x, mask)
    return (result, weights) if return_attention_scores else result


def _attend(tokens, axes, num_heads, scale, visible, ramp, tables):
    """Of heads (B N, *grid, D): output (B, n, N D), weights of the tiles."""
    query, key, value = tokens
    query = tiles(query, axes)
    key, value = (rows(windows(t, axes)) for t in (key, value))
    logits = scores(rows(query), key, scale)
    keys, values = tables
    if keys is not None:
        logits = logits + relative_scores(query, keys, axes, scale)
    count = math.prod(axis.count for axis in axes)
    shape = (-1, num_heads, count, *ops.shape(logits)[1:])
    logits = ops.reshape(logits, shape)
    if ramp is not None:
        # No logical and: LiteRT aborts at those of more than four axes.
        ramp = ops.where(visible, ramp, 0.0)
        visible = ramp > 0
    weights = masked_softmax(logits, visible, rows_may_be_empty=True)
    if ramp is not None:
        weights = weights * ops.cast(ramp, weights.dtype)
        total = ops.sum(weights, axis=-1, keepdims=True)
        weights = weights / (total + EPSILON)
    flat = ops.cast(ops.reshape(weights, (-1, *shape[3:])), value.dtype)
    found = ops.matmul(flat, value)
    sizes = [axis.tile for axis in axes]
    found = ops.reshape(found, (-1, *sizes, value.shape[-1]))
    if values is not None:
        found = found + relative_sums(flat, values, axes)
    found = untile(found, axes)
    n = math.prod(axis.queries for axis in axes)
    found = ops.reshape(found, (-1, num_heads, n, value.shape[-1]))
    return merge_heads(found), weights[:, :, 0]


def _ramp(axes, span, ramp, causal):
    """m of each head, query and key: float32 (B or 1, N, tiles or 1, Q, K)."""
    distance = distances(axes, causal)
    num_heads = span.shape[-1]
    if len(span.shape) == 1:
        span = ops.reshape(span, (1, num_heads, 1, 1, 1))
    else:
        count = math.prod(axis.count for axis in axes)
        queries = math.prod(axis.tile for axis in axes)
        span = tiles(_heads(flatten(span), span, num_heads), axes)
        span = ops.reshape(span, (-1, num_heads, count, queries, 1))
    return span_mask(distance, span, ramp)


def _heads(tokens, like, num_heads):
    """(B, n, N D) -> (B N, *grid, D), the grid that of another tensor."""
    tokens = split_heads(tokens, num_heads)
    grid = ops.shape(like)[1:-1]
    return ops.reshape(tokens, (-1, *grid, tokens.shape[-1]))


def unit(x):
    """x within 0 and 1, both included in what has a gradient."""
    x = ops.convert_to_tensor(x)  # JAX takes no variable here
    inside = ops.logical_and(x >= 0, x <= 1)
    return ops.where(inside, x, ops.cast(x > 1, x.dtype))
