"""Axial attention: every cell looks along the lines that cross in it.

Ho, Kalchbrenner, Weissenborn and Salimans, "Axial Attention in
Multidimensional Transformers", 2019. Dense attention along one axis of a grid
costs the size of that axis a cell, and all other axes are batch. Each axis has
maps of its own; what they find is added ("sum"), or one axis works on what the
one before it found ("sequential"), which reaches every cell of the grid.

Letters: B batch, H W grid, C channels, N heads, D head size, L cells of a line.
"""

import keras
import numpy as np
from keras import ops

from kanets.attention.base import MAP_NAMES, GridAttention
from kanets.attention.checks import check_choice
from kanets.attention.grid import (
    cells,
    check_mask,
    grid_axes,
    mapped_attention,
    zero_padding,
)

MODES = ("sum", "sequential")


def axial_attention(
    x,
    num_heads=1,
    scale=None,
    mask=None,
    query=None,
    key=None,
    value=None,
    output=None,
    return_attention_scores=False,
    mode="sum",
):
    """Attention along each axis of a grid.

        A_a(X) = o_a(Attn(q_a(X), k_a(X), v_a(X))) within each line of axis a
        "sum"         Y = A_1(X) + ... + A_d(X)
        "sequential"  Y = A_d(... A_1(X))

    Args:
        x: float tensor (B, *grid, C).
        num_heads: N, a divisor of C.
        scale: factor of the logits; None is none, "rsqrt" is 1/sqrt(D).
        mask: optional bool tensor (B, *grid), True where x is valid. Padding
            is not attended to, and the output there is zero.
        query, key, value, output: optional lists of callables, or None, one
            for each axis, linear in the last axis, (tokens, C) -> (tokens,
            C'), of all lines at once.
        return_attention_scores: also return the weights.
        mode: "sum" or "sequential".

    Returns:
        Tensor (B, *grid, C'), dtype of `x`; with `return_attention_scores`
        a pair of it and the weights (B, N, H·W, H + W) in float32: for each
        cell those of its line along each axis, in the order of the axes, each
        divided by the number of axes, so that their sum is 1.

    Raises:
        ValueError: bad rank, mask, `mode`, `num_heads` or `scale` (see
            `core.attention`).

    Cost: O(H·W·(H+W)·C) time, O(N·H·W·(H+W)) memory.

    Example:

    >>> axial_attention(keras.random.normal((2, 12, 20, 8)), num_heads=2).shape
    (2, 12, 20, 8)

    References: Ho et al., https://arxiv.org/abs/1912.12180, section 3.
    """
    axes = grid_axes(x)
    check_choice(MODES, mode=mode)
    mask = None if mask is None else check_mask(mask, x)
    total, found = None, []
    for place, axis in enumerate(axes):
        maps = [
            None if of_axes is None else of_axes[place]
            for of_axes in (query, key, value, output)
        ]
        result, weights = _along(x, axis, maps, num_heads, scale, mask)
        if mode == "sequential":
            x = total = result
        else:
            total = result if total is None else total + result
        if return_attention_scores:
            found.append(weights / len(axes))
    total = zero_padding(total, mask)
    if not return_attention_scores:
        return total
    return total, ops.concatenate(found, axis=-1)


@keras.saving.register_keras_serializable(package="kanets")
class AxialAttention(GridAttention):
    """Attention along each axis of a grid, with maps of its own for each.

        A_a(X) = o_a(Attn(q_a(X), k_a(X), v_a(X))) within each line of axis a
        "sum"         Y = A_1(X) + ... + A_d(X)
        "sequential"  Y = A_d(... A_1(X))

    For sequences (B, T, C), where it is dense attention, pictures and video
    (B, T, H, W, C); a layer with learned maps keeps to the rank that it was
    built for.

    Args:
        mode: "sum" or "sequential".
        num_heads, projections, key_dim, scale, use_bias, kernel_initializer,
            kernel_regularizer, output_initializer: as in
            `KroneckerAttention`. `projections` are learned for each axis; a
            bias of `o` enters once per axis. In "sequential" mode
            `output_initializer` is that of the last axis alone, as what comes
            after a zero learns nothing.

    Call arguments:
        query: float tensor (B, *grid, C); sizes of the grid may be None.
        mask: optional bool tensor (B, *grid), True where valid.
        return_attention_scores: also return the weights, in float32
            (B, N, H·W, H + W), as in `axial_attention`.

    Returns:
        Tensor (B, *grid, C), and the weights on request.

    Raises:
        ValueError: unknown `mode`, `projections` or `scale`; channels that are
            unknown or not divided by `num_heads`; an input of another rank.

    Cost: O(H·W·(H+W)·C) time, O(N·H·W·(H+W)) memory.

    Example:

    >>> layer = AxialAttention(num_heads=4)
    >>> layer(keras.random.normal((2, 12, 20, 16))).shape
    (2, 12, 20, 16)

    References: Ho et al., "Axial Attention in Multidimensional Transformers",
    https://arxiv.org/abs/1912.12180, section 3.
    """

    def __init__(self, mode="sum", **kwargs):
        super().__init__(**kwargs)
        check_choice(MODES, mode=mode)
        self.mode = mode

    def build(self, input_shape):
        super().build(input_shape)
        if self._maps:
            self.input_spec = keras.layers.InputSpec(
                ndim=len(input_shape), axes={-1: input_shape[-1]}
            )

    def _new_maps(self, letter, input_shape):
        axes = range(len(input_shape) - 2)
        maps = {}
        for axis in axes:
            name = f"{MAP_NAMES[letter]}_{axis}"
            is_last = letter == self._last_map() and (
                self.mode == "sum" or axis == axes[-1]
            )
            maps[name] = self._new_map(letter, name, input_shape[-1], is_last)
        return maps

    def operator(self, inputs, **arguments):
        axes = range(len(inputs.shape) - 2)
        for name in MAP_NAMES.values():
            arguments[name] = [
                arguments.pop(f"{name}_{axis}", None) for axis in axes
            ]
        return axial_attention(inputs, mode=self.mode, **arguments)

    def _token_counts(self, grid):
        return cells(grid), None if None in grid else sum(grid)

    def _maps_at(self, scores, cell, grid):
        # "sum": the mean of what the axes found is the sum of the cell's row
        # and column. "sequential": the cell looks along its row, at cells each
        # of which had looked along its column.
        (row, column), (height, width) = cell, grid
        shape = (*scores.shape[:2], height, width, height + width)
        scores = scores.reshape(shape)
        along_row = scores[:, :, row, column, height:]
        if self.mode == "sequential":
            columns = np.swapaxes(scores[:, :, row, :, :height], 2, 3)
            return 4 * columns * along_row[:, :, None]
        maps = np.zeros((*shape[:2], height, width), scores.dtype)
        maps[:, :, row] = along_row
        maps[:, :, :, column] += scores[:, :, row, column, :height]
        return maps

    def get_config(self):
        return {**super().get_config(), "mode": self.mode}


def _along(x, axis, maps, num_heads, scale, mask):
    """Attention within the lines of one axis, and its weights, cell by cell.

    Returns:
        Tensors (B, *grid, C') and (B, N, H·W, L).
    """
    grid = grid_axes(x)
    order = [0, *(a for a in grid if a != axis), axis]
    places = [order.index(a) for a in grid]
    lines = _transposed(x, [*order, len(order)])
    outer, (length, channels) = ops.shape(lines)[1:-2], ops.shape(lines)[-2:]
    tokens = ops.reshape(lines, (-1, length, channels))
    if mask is not None:
        mask = ops.reshape(_transposed(mask, order), (-1, length))
    result, weights = mapped_attention(
        tokens, tokens, maps, num_heads, scale, mask
    )
    result = ops.reshape(result, (-1, *outer, length, result.shape[-1]))
    result = _transposed(result, [0, *places, len(order)])
    # The heads stand before the cells of a line, here (B, *outer, N, L, L).
    heads, last = len(order) - 1, len(order) + 1
    weights = ops.reshape(weights, (-1, *outer, num_heads, length, length))
    places = [p + 1 if p == heads else p for p in places]
    weights = ops.transpose(weights, [0, heads, *places, last])
    every = cells(ops.shape(x)[1:-1])
    return result, ops.reshape(weights, (-1, num_heads, every, length))


def _transposed(x, order):
    return x if order == sorted(order) else ops.transpose(x, order)
