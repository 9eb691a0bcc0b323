"""Kronecker attention: attention over the averages of an image.

Gao, Wang and Ji, "Kronecker Attention Networks", KDD 2020. An image X of
H x W positions is summarised by two sets of means, H̄ (one token per column)
and L̄ (one token per row); the operators attend over these, C̄ = [L̄, H̄].

    KAO_KV    Y    = Attn(Q=X,  K=C̄, V=C̄)
    KAO_QKV   O    = Attn(Q=C̄, K=C̄, V=C̄),   Y[i, j] = O_L[i] + O_H[j]

The operators are pure functions of any number of grid axes: a sequence is its
own tokens, a video has T + H + W, in the order of the axes.

Letters: B batch, H W grid, C channels, N heads, D head size, T tokens.
"""

import keras
from keras import ops

from kanets.attention.base import GridAttention
from kanets.attention.checks import (
    check_choice,
    check_positive_or_none,
    logit_scale,
)
from kanets.attention.core import (
    attention,
    check_heads,
    merge_heads,
    split_heads,
)
from kanets.attention.grid import (
    cells,
    flatten,
    grid_axes,
    mapped_attention,
    unflatten,
    zero_padding,
)
from kanets.attention.means import (
    IMPLEMENTATIONS,
    axis_means,
    chosen_for,
    outer_sum,
)


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
            (JAX alone, (B, H, W, C) without a mask); "pool", means as
            `axis_means` makes them for inference elsewhere; or "auto", what
            `kanets.attention.implementation` has set.

    Returns:
        Tensor (B, *grid, C'), dtype of `x`; with `return_attention_scores`
        a pair of it and the weights (B, N, H·W, H + W) in float32.

    Raises:
        ValueError: bad rank, mask, `num_heads` or `scale` (see
            `core.attention`), or an implementation that is unknown or not
            for this input or backend.

    Cost: O(H·W·(H+W)·C) time, O(N·H·W·(H+W)) memory; with "pallas" memory
    O(H·W·C).

    Example:

    >>> kao_kv(keras.random.normal((2, 12, 20, 8)), num_heads=2).shape
    (2, 12, 20, 8)

    References: Kronecker Attention Networks (KDD 2020), section 3.4.
    """
    tokens, key_mask, attend = _summary(
        x, mask, implementation, return_attention_scores
    )
    maps = query, key, value, output
    result, weights = mapped_attention(
        flatten(x), tokens, maps, num_heads, scale, key_mask, attend
    )
    result = unflatten(result, x, mask)
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
    rectify=False,
):
    """Kronecker attention with averaged queries, keys and values.

    O = o(Attn(q(C̄), k(C̄), v(C̄))) and Y[i, j] = O_L[i] + O_H[j]: the H + W
    means attend to each other, and a position adds what its row and its
    column found. All four linear maps work on H + W tokens; as `output` is
    applied before the outer sum, a bias in it enters once per grid axis.

    Args:
        x, num_heads, scale, mask, query, key, value, output,
            return_attention_scores, implementation: as in `kao_kv`.
        rectify: whether a token keeps itself and what it finds is rectified,
            O = o(relu6(v(C̄) + Attn(q(C̄), k(C̄), v(C̄)))).

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
    tokens, key_mask, attend = _summary(
        x, mask, implementation, return_attention_scores
    )
    maps = query, key, value, output
    result, weights = mapped_attention(
        tokens, tokens, maps, num_heads, scale, key_mask, attend, rectify
    )
    parts = _split_tokens(result, ops.shape(x)[1:-1])
    result = zero_padding(outer_sum(parts), mask)
    return (result, weights) if return_attention_scores else result


_OPERATORS = {"kv": kao_kv, "qkv": kao_qkv}


@keras.saving.register_keras_serializable(package="kanets")
class KroneckerAttention(GridAttention):
    """Attention over the means of a grid's rows and columns.

    With C̄ the H + W means of rows and columns of X:

        "kv"   Y = o(Attn(q(X), k(C̄), v(C̄)))
        "qkv"  O = o(Attn(q(C̄), k(C̄), v(C̄))),  Y[i, j] = O_L[i] + O_H[j]

    The same for sequences (B, T, C) and video (B, T, H, W, C).

    Args:
        mode: "kv" or "qkv".
        rectify: whether, in "qkv" mode, a token keeps itself and what it
            finds is rectified, O = o(relu6(v(C̄) + Attn(q(C̄), k(C̄), v(C̄)))),
            which is not in the paper. Attention over means is nearly their
            mean: without itself a token says little of its row or column.
        num_heads: N, a divisor of the channels, but with `key_dim`.
        projections: which of q, k, v, o are learned C -> C maps: "" is the
            bare operator, "v" the paper's choice in compact modules, "qkvo"
            the full layer. The others are identities.
        key_dim: D, the size of a head, with "qkvo": q, k, v are then maps
            C -> N·D and o is N·D -> C, which is cheap where C is large.
            None is C/N.
        value_dim: with `key_dim`, another size of a head's values.
        scale: factor of the logits: None is none, as in the paper; "rsqrt"
            is 1/sqrt(D); or a number.
        use_bias: whether the maps have a bias. In "qkv" mode the bias of
            `o` enters once per grid axis, as that map is applied before the
            outer sum, where it is cheap.
        kernel_initializer, kernel_regularizer: of the maps.
        output_initializer: of the kernel of the last map, o or, without it,
            v, in place of `kernel_initializer`; or None.

    Call arguments:
        query: float tensor (B, *grid, C); sizes of the grid may be None.
        mask: optional bool tensor (B, *grid), True where valid.
        return_attention_scores: also return the weights.

    Returns:
        Tensor (B, *grid, C), and on request the weights in float32:
        (B, N, H·W, H + W) for "kv", (B, N, H + W, H + W) for "qkv".
        Softmax and means run in float32 in every precision.

    Raises:
        ValueError: unknown `mode`, `implementation`, `projections` or
            `scale`; channels that are unknown or not divided by `num_heads`;
            "pallas" with another backend than JAX, a mask or no picture.

    Cost: time O(H·W·(H+W)·C) for "kv", O((H+W)²·C) and one pass over X for
    "qkv", against O((H·W)²·C) for dense attention.

    Example:

    >>> layer = KroneckerAttention(mode="qkv", num_heads=4)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: Gao, Wang and Ji, "Kronecker Attention Networks", KDD 2020,
    section 3.
    """

    implementations = IMPLEMENTATIONS

    def __init__(self, mode="qkv", rectify=False, value_dim=None, **kwargs):
        super().__init__(**kwargs)
        check_choice(_OPERATORS, mode=mode)
        check_choice((False, True), rectify=rectify)
        if rectify and mode != "qkv":
            raise ValueError(
                'rectify is of mode "qkv", where queries are tokens. '
                f"Received: rectify=True, mode={mode!r}"
            )
        self.value_dim = check_positive_or_none(value_dim=value_dim)
        if value_dim is not None and self.key_dim is None:
            raise ValueError(
                "value_dim is of layers with key_dim. "
                f"Received: value_dim={value_dim}, key_dim=None"
            )
        self.mode = mode
        self.rectify = rectify
        self.wants_norm = not rectify  # worse with it, when tried

    def operator(self, inputs, **arguments):
        if self.rectify:
            arguments["rectify"] = True
        return _OPERATORS[self.mode](
            inputs, implementation=self.implementation, **arguments
        )

    def check_inputs(self, inputs, mask=None):
        super().check_inputs(inputs, mask)
        chosen_for(self.implementation, inputs, mask)

    def _width(self, letter, channels):
        if self.value_dim is not None and letter in "vo":
            return self.num_heads * self.value_dim
        return super()._width(letter, channels)

    def _last_map(self):
        if not self.rectify:
            return super()._last_map()
        # At zero, v would get no gradient through what rectifies.
        return "o" if "o" in self.projections else None

    def _token_counts(self, grid):
        tokens = None if None in grid else sum(grid)
        return (cells(grid), tokens) if self.mode == "kv" else (tokens,) * 2

    def _maps_at(self, scores, cell, grid):
        # With the weights r (H) of the rows and c (W) of the columns, as a
        # mean and a linear map commute, sum_i r[i] v(L̄_i) + sum_j c[j] v(H̄_j)
        # = sum_ij (r[i] / W + c[j] / H) v(X_ij).
        (row, column), (height, width) = cell, grid
        if self.mode == "kv":
            tokens = scores[:, :, row * width + column]
        else:
            tokens = (scores[:, :, row] + scores[:, :, height + column]) / 2
        rows, columns = tokens[..., :height], tokens[..., height:]
        return rows[..., None] / width + columns[..., None, :] / height

    def get_config(self):
        return {
            **super().get_config(),
            "mode": self.mode,
            "rectify": self.rectify,
            "value_dim": self.value_dim,
        }


def _summary(x, mask, implementation, return_attention_scores):
    """C̄ (B, T, C), under a mask which tokens saw something, what attends."""
    how = chosen_for(implementation, x, mask)
    tokens = ops.concatenate(axis_means(x, mask, how), axis=1)
    # Kernels have no scores to give.
    fused = how == "pallas" and not return_attention_scores
    attend = _fused_attention if fused else attention
    seen = None if mask is None else _seen(ops.cast(mask, "bool"), grid_axes(x))
    return tokens, seen, attend


def _seen(mask, axes):
    """Which tokens are means of something, (B, T)."""
    if len(axes) == 1:
        return mask
    others = [[a for a in axes if a != kept] for kept in axes]
    return ops.concatenate([ops.any(mask, axis=a) for a in others], axis=1)


def _fused_attention(query, key, value, num_heads, scale, key_mask):
    """`attention` by a kernel: there is no mask, and there are no weights."""
    from kanets.attention.kernels import pallas

    head_dim = check_heads(query.shape[-1], value.shape[-1], num_heads)
    heads = (split_heads(t, num_heads) for t in (query, key, value))
    if num_heads == 1:
        heads = (t[:, None] for t in heads)
    output = pallas.shared_attention(*heads, logit_scale(scale, head_dim))
    return merge_heads(output), None


def _split_tokens(tokens, sizes):
    """Parts of tokens (B, T, C) of some sizes, which may be open."""
    if isinstance(sizes[0], int) and len(set(sizes)) == 1:
        # TensorFlow's gradient of slices is slow: zeros, and a strided copy.
        return ops.split(tokens, len(sizes), axis=1)
    parts = []
    for size in sizes:
        parts.append(tokens[:, :size])
        tokens = tokens[:, size:]
    return parts
