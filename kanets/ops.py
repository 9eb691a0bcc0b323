"""Kronecker attention operators: attention over the averages of an image.

Gao, Wang and Ji, "Kronecker Attention Networks", KDD 2020. An image X of
H x W positions is summarised by two sets of means, H̄ (one token per column)
and L̄ (one token per row); the operators attend over C̄ = [L̄, H̄], H + W
tokens instead of H·W.

    KAO_KV    Y    = Attn(Q=X,  K=C̄, V=C̄)
    KAO_QKV   O    = Attn(Q=C̄, K=C̄, V=C̄),   Y[i, j] = O_L[i] + O_H[j]

Everything here is a pure function on `keras.ops`, and holds for any number of
grid axes: a 1-D sequence (tokens are the sequence itself), a picture, a video
(T + H + W tokens). Tokens are ordered axis by axis: rows, then columns.

Letters: B batch, H W grid, C channels, N heads, D head size, T tokens.
"""

import keras
from keras import ops

from ylg.ops.attention import check_implementation, require_jax
from ylg.ops.scale import logit_scale

IMPLEMENTATIONS = ("auto", "xla", "pallas")
_MASKED = -1e30  # added in float32 only: exp() of it is exactly zero


def axis_means(x, mask=None, implementation="auto"):
    """Mean of a grid along all its axes but one, for each axis.

    Args:
        x: float tensor (B, *grid, C), at least one grid axis. In a picture
            (B, H, W, C) the results are L̄ (B, H, C) and H̄ (B, W, C).
        mask: optional bool tensor (B, *grid), True where x is valid. Only
            valid positions are averaged; a slice with none gives zero.
        implementation: "xla"; "pallas", a kernel that reads a picture once
            for both of its axes (JAX alone, (B, H, W, C) without a mask); or
            "auto", which is "xla" as long as the other has not been measured
            to be faster.

    Returns:
        A list with one tensor (B, size of the axis, C) per grid axis, in the
        dtype of `x`; sums run in float32.

    Raises:
        ValueError: `x` has no grid axis, `mask` is not (B, *grid), or the
            implementation is unknown or not for this input or backend.

    Cost: one read of x per axis, O(H·W·C).
    """
    axes = _grid_axes(x)
    if _is_pallas(implementation, x, mask):
        from ylg.ops import pallas  # which imports JAX

        return pallas.axis_means(ops.convert_to_tensor(x))
    dtype = keras.backend.standardize_dtype(x.dtype)
    # Half precision overflows or stalls in long sums.
    wide = dtype if dtype == "float64" else "float32"
    x = ops.cast(x, wide)
    if mask is None:
        means = [
            ops.mean(x, axis=[a for a in axes if a != kept]) for kept in axes
        ]
        return [ops.cast(m, dtype) for m in means]
    mask = _check_mask(mask, x)
    weights = ops.expand_dims(ops.cast(mask, wide), -1)
    x = ops.where(ops.expand_dims(mask, -1), x, ops.zeros_like(x))
    means = []
    for kept in axes:
        others = [a for a in axes if a != kept]
        total = ops.sum(x, axis=others)
        count = ops.sum(weights, axis=others)
        means.append(ops.cast(total / ops.maximum(count, 1.0), dtype))
    return means


def outer_sum(parts):
    """Sum of one vector per axis at every cell: Y[i, j] = O_L[i] + O_H[j].

    Args:
        parts: a list of tensors (B, size, C), one per grid axis.

    Returns:
        Tensor (B, *sizes, C).

    Raises:
        ValueError: `parts` is empty, or one of them is not of rank 3.
    """
    if not parts:
        raise ValueError("outer_sum needs one part or more. Received: parts=[]")
    total = None
    for axis, part in enumerate(parts):
        if len(part.shape) != 3:
            raise ValueError(
                "Each part of an outer sum must be (batch, size, channels). "
                f"Received: parts[{axis}].shape={tuple(part.shape)}"
            )
        others = [1 + a for a in range(len(parts)) if a != axis]
        part = ops.expand_dims(part, others) if others else part
        total = part if total is None else total + part
    return total


def attention(query, key, value, num_heads=1, scale=None, key_mask=None):
    """Softmax attention between two sets of tokens, heads in the channels.

    Head n holds the n-th of N equal, contiguous groups of channels.

    Args:
        query: tensor (B, Q, C).
        key: tensor (B, T, C).
        value: tensor (B, T, V).
        num_heads: N, a divisor of C and V.
        scale: factor of the logits; None is no factor (the paper's form),
            "rsqrt" is 1/sqrt(C/N).
        key_mask: optional bool tensor (B, T), True where a key may be used.

    Returns:
        Output (B, Q, V) in the dtype of `value`, and the attention weights
        (B, N, Q, T). Logits and softmax are in float32 whatever the dtype:
        unscaled products pass float16's largest number, and bfloat16 would
        round them by 2^-8, which the exponential multiplies.

    Raises:
        ValueError: `num_heads` does not divide C and V, or `scale` is
            neither None, "rsqrt" nor a number.

    Cost: O(Q·T·C) time, O(N·Q·T) memory.
    """
    head_dim = _head_dim(query.shape[-1], value.shape[-1], num_heads)
    scale = logit_scale(scale, head_dim)
    dtype = value.dtype
    wide = keras.backend.result_type(query.dtype, key.dtype, "float32")
    query, key = ops.cast(query, wide), ops.cast(key, wide)
    if scale != 1.0:
        query = query * ops.cast(scale, query.dtype)
    query, key, value = (
        _split_heads(t, num_heads) for t in (query, key, value)
    )
    logits = ops.matmul(query, ops.swapaxes(key, -1, -2))
    if key_mask is not None:
        padding = 1.0 - ops.cast(key_mask, logits.dtype)
        ones = [1] * (len(logits.shape) - 2)
        padding = ops.reshape(padding, (-1, *ones, ops.shape(key)[-2]))
        logits = logits + _MASKED * padding
    # A single key has weight 1, of which Keras's softmax would warn.
    single = logits.shape[-1] == 1
    weights = ops.ones_like(logits) if single else ops.softmax(logits)
    output = ops.matmul(ops.cast(weights, dtype), value)
    if num_heads == 1:
        return output, weights[:, None]
    return _merge_heads(output), weights


def kao_kv(
    x,
    num_heads=1,
    scale=None,
    mask=None,
    query=None,
    key=None,
    value=None,
    output=None,
    return_attention_scores=False,
    implementation="auto",
):
    """Kronecker attention with averaged keys and values.

    Y = o(Attn(q(X), k(C̄), v(C̄))): every position attends to the H + W means
    of rows and columns. q, k, v and o are linear maps, identities unless
    given. A mean and a linear map commute, so the maps of keys and values
    work on H + W tokens, not on H·W positions.

    Args:
        x: float tensor (B, *grid, C).
        num_heads: N, a divisor of C.
        scale: factor of the logits; None is none (the paper's form), "rsqrt"
            is 1/sqrt(D).
        mask: optional bool tensor (B, *grid), True where x is valid. Padding
            enters no mean, a fully padded row or column is not attended to,
            and the output at padded positions is zero.
        query, key, value, output: optional callables, linear in the last
            axis, (tokens, C) -> (tokens, C'), of all pictures at once.
        return_attention_scores: also return the weights.
        implementation: "xla"; "pallas", kernels that read X once for its
            means and keep the scores on the chip, if they are not asked for
            (JAX alone, (B, H, W, C) without a mask); or "auto", which is
            "xla" as long as the other has not been measured to be faster.

    Returns:
        Tensor (B, *grid, C'), dtype of `x`; with `return_attention_scores`
        a pair of it and the weights (B, N, H·W, H + W) in float32.

    Raises:
        ValueError: bad rank, mask, `num_heads` or `scale` (see `attention`),
            or an implementation that is unknown or not for this input or
            backend.

    Cost: O(H·W·(H+W)·C) time, O(N·H·W·(H+W)) memory; with "pallas" memory
    O(H·W·C).

    Example:

    >>> kao_kv(keras.random.normal((2, 12, 20, 8)), num_heads=2).shape
    (2, 12, 20, 8)

    References: Kronecker Attention Networks (KDD 2020), section 3.4.
    """
    tokens, key_mask = _tokens(x, mask, implementation)
    attend = _way(implementation, return_attention_scores)
    result, weights = attend(
        _apply(query, _flatten(x)),
        _apply(key, tokens),
        _apply(value, tokens),
        num_heads,
        scale,
        key_mask,
    )
    result = _unflatten(_apply(output, result), x, mask)
    return (result, weights) if return_attention_scores else result


def kao_qkv(
    x,
    num_heads=1,
    scale=None,
    mask=None,
    query=None,
    key=None,
    value=None,
    output=None,
    return_attention_scores=False,
    implementation="auto",
):
    """Kronecker attention with averaged queries, keys and values.

    O = o(Attn(q(C̄), k(C̄), v(C̄))) and Y[i, j] = O_L[i] + O_H[j]: the H + W
    means attend to each other, and a position adds what its row and its
    column found. All four linear maps work on H + W tokens; as `output` is
    applied before the outer sum, a bias in it enters once per grid axis.

    Args:
        x, num_heads, scale, mask, query, key, value, output,
            return_attention_scores, implementation: as in `kao_kv`.

    Returns:
        Tensor (B, *grid, C'), dtype of `x`; with `return_attention_scores`
        a pair of it and the weights (B, N, H + W, H + W) in float32.

    Raises:
        ValueError: as in `kao_kv`.

    Cost: O((H+W)²·C + H·W·C) time, O(N·(H+W)²) memory beside the output.

    Example:

    >>> kao_qkv(keras.random.normal((2, 12, 20, 8)), num_heads=2).shape
    (2, 12, 20, 8)

    References: Kronecker Attention Networks (KDD 2020), section 3.4.
    """
    tokens, key_mask = _tokens(x, mask, implementation)
    attend = _way(implementation, return_attention_scores)
    result, weights = attend(
        _apply(query, tokens),
        _apply(key, tokens),
        _apply(value, tokens),
        num_heads,
        scale,
        key_mask,
    )
    result = _apply(output, result)
    result = outer_sum(_split_tokens(result, ops.shape(x)[1:-1]))
    result = _zero_padding(result, mask)
    return (result, weights) if return_attention_scores else result


def dense_attention(
    x,
    num_heads=1,
    scale=None,
    mask=None,
    query=None,
    key=None,
    value=None,
    output=None,
    return_attention_scores=False,
    pool_size=1,
):
    """Attention of all positions to all positions: what KAO replaces.

    Y = o(Attn(q(X), k(P), v(P))), P = X or, for a picture and `pool_size`
    above 1, its average pool with that window and stride ("same" padding).

    Args:
        x, num_heads, scale, mask, query, key, value, output,
            return_attention_scores: as in `kao_kv`. A mask together with
            pooling is refused.
        pool_size: side of the pooling window of keys and values.

    Returns:
        Tensor (B, *grid, C'), dtype of `x`; with `return_attention_scores`
        a pair of it and the weights (B, N, H·W, keys) in float32.

    Raises:
        ValueError: bad rank, mask, `num_heads` or `scale` (see `attention`);
            pooling asked of a tensor that is no picture, or with a mask.

    Cost: O((H·W)²·C) time and O(N·(H·W)²) memory, both divided by
    pool_size².
    """
    _grid_axes(x)
    keys, key_mask = x, None
    _check_pooling(x, mask, pool_size)
    if pool_size != 1:
        keys = ops.average_pool(
            x, pool_size, pool_size, "same", data_format="channels_last"
        )
    if mask is not None:
        mask = _check_mask(mask, x)
        key_mask = ops.reshape(mask, (-1, _product(ops.shape(x)[1:-1])))
    keys = _flatten(keys)
    result, weights = attention(
        _apply(query, _flatten(x)),
        _apply(key, keys),
        _apply(value, keys),
        num_heads,
        scale,
        key_mask,
    )
    result = _unflatten(_apply(output, result), x, mask)
    return (result, weights) if return_attention_scores else result


def check_inputs(x, num_heads, mask=None, implementation="auto", pool_size=1):
    """Raises what an operator here would raise for an input of that kind.

    Only shapes and dtypes are looked at, so that a layer can ask for a
    symbolic input, before there are numbers.

    Args:
        x, num_heads, mask, implementation: as in `kao_kv`; `x` and `mask`
            may be symbolic.
        pool_size: as in `dense_attention`.

    Raises:
        ValueError: as the operators.
    """
    _grid_axes(x)
    _head_dim(x.shape[-1], x.shape[-1], num_heads)
    _check_pooling(x, mask, pool_size)
    if mask is not None:
        _check_mask_shape(mask, x)
    _is_pallas(implementation, x, mask)


def _is_pallas(implementation, x, mask):
    """Whether it is "pallas", for which input and backend must be right."""
    check_implementation(implementation, IMPLEMENTATIONS)
    if implementation != "pallas":
        return False
    require_jax()
    dtype = keras.backend.standardize_dtype(x.dtype)
    if len(x.shape) != 4 or mask is not None or dtype == "float64":
        raise ValueError(
            'implementation="pallas" needs a picture (B, H, W, C) of 32 bits '
            f"or fewer and no mask. Received: x.shape={tuple(x.shape)}, "
            f"dtype={dtype}, mask={None if mask is None else 'given'}"
        )
    return True


def _way(implementation, return_attention_scores):
    """What attends; kernels have no scores to give."""
    fused = implementation == "pallas" and not return_attention_scores
    return _fused_attention if fused else attention


def _fused_attention(query, key, value, num_heads, scale, key_mask):
    """`attention` by a kernel: there is no mask, and there are no weights."""
    from ylg.ops import pallas

    head_dim = _head_dim(query.shape[-1], value.shape[-1], num_heads)
    heads = (_split_heads(t, num_heads) for t in (query, key, value))
    if num_heads == 1:
        heads = (t[:, None] for t in heads)
    output = pallas.shared_attention(*heads, logit_scale(scale, head_dim))
    return _merge_heads(output), None


def _tokens(x, mask, implementation):
    """C̄ (B, T, C) and, under a mask, which tokens saw a valid position."""
    tokens = ops.concatenate(axis_means(x, mask, implementation), axis=1)
    if mask is None:
        return tokens, None
    axes = _grid_axes(x)
    mask = ops.cast(mask, "bool")
    seen = []
    for kept in axes:
        others = [a for a in axes if a != kept]
        seen.append(ops.any(mask, axis=others) if others else mask)
    return tokens, ops.concatenate(seen, axis=1)


def _flatten(x):
    """(B, *grid, C) -> (B, product of the grid, C)."""
    return ops.reshape(x, (-1, _product(ops.shape(x)[1:-1]), x.shape[-1]))


def _unflatten(tokens, x, mask):
    """Back to the grid of x; positions that are padding become zero."""
    grid = ops.shape(x)[1:-1]
    result = ops.reshape(tokens, (-1, *grid, tokens.shape[-1]))
    return _zero_padding(result, mask)


def _split_tokens(tokens, sizes):
    parts, start = [], 0
    for size in sizes:
        parts.append(tokens[:, start : start + size])
        start = start + size
    return parts


def _split_heads(tensor, num_heads):
    """(B, T, N·D) -> (B, N, T, D), or as it is where N is 1."""
    if num_heads == 1:
        return tensor
    length = ops.shape(tensor)[1]
    head_dim = tensor.shape[-1] // num_heads
    tensor = ops.reshape(tensor, (-1, length, num_heads, head_dim))
    return ops.transpose(tensor, (0, 2, 1, 3))


def _merge_heads(tensor):
    """(B, N, T, D) -> (B, T, N·D)."""
    _, num_heads, length, head_dim = ops.shape(tensor)
    tensor = ops.transpose(tensor, (0, 2, 1, 3))
    return ops.reshape(tensor, (-1, length, num_heads * head_dim))


def _apply(linear_map, tokens):
    """The map of tokens (B, T, C), as one product of two matrices."""
    if linear_map is None:
        return tokens
    _, length, channels = ops.shape(tokens)
    result = linear_map(ops.reshape(tokens, (-1, channels)))
    return ops.reshape(result, (-1, length, result.shape[-1]))


def _zero_padding(result, mask):
    if mask is None:
        return result
    return result * ops.expand_dims(ops.cast(mask, result.dtype), -1)


def _product(sizes):
    total = 1
    for size in sizes:
        total = total * size
    return total


def _grid_axes(x):
    if len(x.shape) < 3:
        raise ValueError(
            "x must be (batch, *grid, channels) with one grid axis or more. "
            f"Received: x.shape={tuple(x.shape)}"
        )
    return list(range(1, len(x.shape) - 1))


def _check_pooling(x, mask, pool_size):
    if pool_size != 1 and (len(x.shape) != 4 or mask is not None):
        raise ValueError(
            "Pooled keys need a picture (B, H, W, C) and no mask. "
            f"Received: x.shape={tuple(x.shape)}, "
            f"mask={None if mask is None else 'given'}, "
            f"pool_size={pool_size}"
        )


def _check_mask(mask, x):
    mask = ops.convert_to_tensor(mask)
    _check_mask_shape(mask, x)
    return ops.cast(mask, "bool")


def _check_mask_shape(mask, x):
    known = zip(mask.shape, x.shape[:-1], strict=False)
    if len(mask.shape) != len(x.shape) - 1 or any(
        None not in pair and pair[0] != pair[1] for pair in known
    ):
        raise ValueError(
            "mask must be (batch, *grid), the shape of x without channels. "
            f"Received: mask.shape={tuple(mask.shape)}, "
            f"x.shape={tuple(x.shape)}"
        )


def _head_dim(channels, value_channels, num_heads):
    if num_heads < 1 or channels % num_heads or value_channels % num_heads:
        raise ValueError(
            "num_heads must divide the channels of queries and values. "
            f"Received: num_heads={num_heads}, channels={channels}, "
            f"value channels={value_channels}"
        )
    return channels // num_heads
