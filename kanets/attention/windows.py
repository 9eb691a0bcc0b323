"""Sliding windows over a grid, and global cells that see and are seen by all.

Beltagy, Peters and Cohan, "Longformer: The Long-Document Transformer" (2020),
in one dimension; here on any axis of a grid. Near the border a window is cut,
not shifted inside as in `kanets.attention.neighborhood`.

Letters: B batch, H W grid, C channels, N heads, D and E sizes of a head, X
extra keys, n cells, w window.
"""

import dataclasses

import keras
import numpy as np
from keras import ops

from kanets.attention.base import MAP_NAMES
from kanets.attention.checks import check_at_least, one_per_axis
from kanets.attention.core import attention
from kanets.attention.grid import cells, flatten
from kanets.attention.local import (
    LocalAttention,
    check_heads_given,
    local_attention,
)
from kanets.attention.local_tiles import Axis


@dataclasses.dataclass(frozen=True)
class WindowAxis(Axis):
    """Half of the window on both sides of a query, or before it alone."""

    window_size: int
    dilation: int = 1
    causal: bool = False

    def __post_init__(self):
        if self.window_size % 2 == 0:
            raise ValueError(
                "window_size must be odd, the query in the middle. "
                f"Received: window_size={self.window_size}"
            )

    @property
    def extent(self):
        return self.window_size // 2 * (1 if self.causal else 2)

    def seen(self, number, length, xp):
        half = self.window_size // 2
        stop = number + 1 if self.causal else number + half + 1
        return xp.maximum(number - half, 0), xp.minimum(stop, length)


def window_attention(
    query,
    key,
    value,
    window_size=7,
    dilation=1,
    causal=False,
    scale="rsqrt",
    mask=None,
    extra_key=None,
    extra_value=None,
    extra_mask=None,
    implementation="auto",
    return_attention_scores=False,
):
    """Attention of every cell to the window around it, in 1-D, 2-D, 3-D.

    A query sees the cells at offsets t times the dilation, |t| <= w // 2 on
    every axis, that lie in the grid.

    Args:
        query, key: float tensors (B, *grid, N, D).
        value: float tensor (B, *grid, N, E).
        window_size: w, an odd integer, or one for each axis: how many cells
            a query sees along it, itself included.
        dilation: an integer, or one for each axis; or a list with such a list
            for each head.
        causal: whether a cell sees nothing behind it, or one for each axis.
        scale: factor of the logits: "rsqrt" is 1/sqrt(D), None is none, or
            a number.
        mask: optional bool tensor (B, *grid), True where valid: padding is
            not seen, and its output is zero.
        extra_key, extra_value: optional (B, X, N, D) and (B, X, N, E), which
            every cell sees beside its window, in the same softmax.
        extra_mask: optional bool tensor (B, X), True where these are valid.
        implementation: "xla", in tiles; "reference", masked and dense; or
            "auto", what `kanets.attention.implementation` has set.
        return_attention_scores: also return the weights, for looking:
            O(n²) time and memory.

    Returns:
        Tensor (B, *grid, N, E) in the dtype of `value`; with
        `return_attention_scores` a pair of it and the weights (B, N, n,
        X + n) in float32, for n cells row by row. Softmax in float32.

    Raises:
        ValueError: shapes that do not fit each other; a window or dilation
            that is none, or not one for each axis; a bad `scale`.

    Cost: O(n w^axes (D + E)) time, O(n w^axes) memory for each head.

    Example:

    >>> x = keras.random.normal((1, 4096, 4, 16))
    >>> window_attention(x, x, x, 257, dilation=[[1], [1], [2], [4]]).shape
    (1, 4096, 4, 16)

    References: Longformer, arXiv 2004.05150, section 3.
    """
    return local_attention(
        query,
        key,
        value,
        window_axes(len(query.shape) - 3, window_size, dilation, causal),
        scale,
        mask,
        (extra_key, extra_value, extra_mask),
        implementation,
        return_attention_scores,
    )


def window_axes(rank, window_size, dilation, causal):
    """For one head or for each: a `WindowAxis` for each axis of a grid."""
    sizes = one_per_axis("window_size", window_size, rank)
    behind = one_per_axis("causal", causal, rank, bool)
    heads = dilation if _is_per_head(dilation) else [dilation]
    return [
        tuple(map(WindowAxis, sizes, one_per_axis("dilation", d, rank), behind))
        for d in heads
    ]


@keras.saving.register_keras_serializable(package="kanets")
class WindowAttention(LocalAttention):
    """Attention of every cell to the window around it, and to global cells.

        Y = o(Attn(q(X), k(X), v(X)))

    where the queries see what `window_attention` says, which has the rule.
    For sequences (B, T, C), pictures and video. With `num_global` cells may
    be global, where the mask is 2: all others see these, beside their window
    and in the same softmax, and these see all, by maps of their own,
    query_global, key_global and value_global, on both sides.

    Args:
        window_size: w, an odd integer, or one for each axis of the grid.
        dilation: an integer, or one for each axis; or a list with such a list
            for each head.
        causal: whether a cell sees nothing behind it, or one for each axis.
        num_global: how many global cells a sequence has at most, the first
            ones count; 0 is without. Not for causal windows.
        num_heads, projections, key_dim, scale, use_bias, kernel_initializer,
            kernel_regularizer, output_initializer: as in
            `KroneckerAttention`, but all four maps are learned by default,
            and the scale is 1/sqrt(D).

    Call arguments:
        query: float tensor (B, *grid, C); sizes of the grid may be None.
        mask: optional bool tensor (B, *grid), True where valid; or with
            `num_global` an integer one: 0 padding, 1 valid, 2 global.
        return_attention_scores: also return the weights (B, N, n, n) in
            float32, O(n²): for looking.

    Returns:
        Tensor (B, *grid, C), and the weights on request. Softmax in float32.

    Raises:
        ValueError: an argument out of its range, or not one for each axis or
            head.

    Cost: O(n (C² + w^axes C + num_global C)) time, O(n (w^axes + num_global)
    N) memory.

    Example:

    >>> layer = WindowAttention(window_size=(3, 7), num_heads=4)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: Beltagy, Peters and Cohan, "Longformer", arXiv 2004.05150,
    section 3.
    """

    def __init__(
        self, window_size=7, dilation=1, causal=False, num_global=0, **kwargs
    ):
        super().__init__(**kwargs)
        self.window_size = one_per_axis("window_size", window_size)
        self.causal = one_per_axis("causal", causal, kind=bool)
        if _is_per_head(dilation):
            self.dilation = [one_per_axis("dilation", d) for d in dilation]
            check_heads_given(self.dilation, self.num_heads)
        else:
            self.dilation = one_per_axis("dilation", dilation)
        for size in np.ravel(self.window_size):
            WindowAxis(size)  # refuses what is even
        self.num_global = check_at_least(0, num_global=num_global)
        if num_global and np.any(self.causal):
            raise ValueError(
                "Causal windows have no global cells. Received: "
                f"causal={causal}, num_global={num_global}"
            )

    def build(self, input_shape):
        super().build(input_shape)
        if not self.num_global:
            return
        for letter in "qkv":
            if letter in self.projections:
                name = f"{MAP_NAMES[letter]}_global"
                self._maps[name] = self._new_map(
                    letter, name, input_shape[-1], letter == self._last_map()
                )

    def head_axes(self, rank):
        return window_axes(rank, self.window_size, self.dilation, self.causal)

    def attend_heads(self, inputs, heads, mask, return_attention_scores):
        if not self.num_global or mask is None:
            return super().attend_heads(
                inputs, heads, mask, return_attention_scores
            )
        query, key, value = heads
        grid = ops.shape(inputs)[1:-1]
        mask = ops.reshape(ops.cast(mask, "int32"), (-1, cells(grid)))
        valid, chosen = mask > 0, _chosen(mask, self.num_global)
        pick = ops.cast(chosen, key.dtype)  # rows of a product with it

        def picked(x):
            found = ops.matmul(pick, _tokens(x, grid))
            return ops.reshape(found, (-1, self.num_global, *x.shape[-2:]))

        is_global = ops.any(chosen, axis=1)
        is_local = ops.logical_and(valid, ops.logical_not(is_global))
        extra = (picked(key), picked(value), ops.any(chosen, axis=2))
        output, weights = super().attend_heads(
            inputs,
            heads,
            ops.reshape(is_local, (-1, *grid)),
            return_attention_scores,
            extra,
        )
        x = flatten(inputs)
        result, by_global = attention(
            self._mapped(ops.matmul(pick, x), "query_global"),
            self._mapped(x, "key_global"),
            self._mapped(x, "value_global"),
            self.num_heads,
            self.scale,
            valid,
        )
        # What is of local cells is zero at global ones, and the reverse.
        result = ops.matmul(ops.swapaxes(pick, 1, 2), result)
        output = output + ops.reshape(result, ops.shape(output))
        if return_attention_scores:
            weights = _all_pairs(weights, by_global, chosen)
        return output, weights

    def get_config(self):
        return {
            **super().get_config(),
            "window_size": self.window_size,
            "dilation": self.dilation,
            "causal": self.causal,
            "num_global": self.num_global,
        }

    def _mapped(self, x, name):
        return self._maps[name](x) if name in self._maps else x


def _chosen(mask, num_global):
    """The first cells (B, n) where the mask is 2: bool (B, num_global, n)."""
    is_global = ops.equal(mask, 2)[:, None]
    number = ops.cumsum(ops.cast(is_global, "int32"), axis=-1)
    wanted = ops.arange(1, num_global + 1, dtype="int32")[:, None]
    return ops.logical_and(is_global, ops.equal(number, wanted))


def _all_pairs(weights, by_global, chosen):
    """Weights (B, N, n, g + n) and (B, N, g, n), as cells: (B, N, n, n)."""
    pick = ops.cast(chosen, weights.dtype)[:, None]
    num_global = chosen.shape[1]
    of_global = ops.matmul(weights[..., :num_global], pick)
    rows = ops.matmul(ops.swapaxes(pick, 2, 3), by_global)
    return weights[..., num_global:] + of_global + rows


def _tokens(heads, grid):
    """(B, *grid, N, D) -> (B, n, N D)."""
    width = heads.shape[-2] * heads.shape[-1]
    return ops.reshape(heads, (-1, cells(grid), width))


def _is_per_head(dilation):
    return isinstance(dilation, list | tuple | np.ndarray) and any(
        isinstance(d, list | tuple | np.ndarray) for d in dilation
    )
