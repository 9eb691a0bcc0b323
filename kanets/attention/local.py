"""Exact attention of the cells of a grid to those around them, tile by tile.

The keys of a tile of queries are gathered once, and scores are products of two
matrices, for all tiles at a time: time and memory of all that is seen, and of
no n x n scores. What is seen is told by `kanets.attention.local_tiles`.

Letters: B batch, N heads, D and E sizes of a head, n cells, X extra keys, T
tiles.
"""

import keras
import numpy as np
from keras import ops

from kanets.attention.base import GridAttention, check_picture
from kanets.attention.checks import logit_scale
from kanets.attention.core import attend, hidden, masked_softmax, scores
from kanets.attention.grid import (
    cells,
    check_mask,
    check_mask_shape,
    fits,
    zero_padding,
)
from kanets.attention.implementations import chosen
from kanets.attention.local_tiles import (
    check_sizes,
    seen_along,
    tiles_of,
    visible_pairs,
)

IMPLEMENTATIONS = ("auto", "xla", "reference")


def local_attention(
    query,
    key,
    value,
    head_axes,
    scale=None,
    mask=None,
    extra=None,
    implementation="auto",
    return_attention_scores=False,
):
    """Softmax attention of each cell over the cells that its axes show.

    Args:
        query: float tensor (B, *grid, N, D).
        key: float tensor of the shape of `query`.
        value: float tensor (B, *grid, N, E).
        head_axes: an `Axis` for each axis of the grid, in a tuple: a list of
            N of these, or of one for all heads.
        scale: factor of the logits: None, "rsqrt" or a number.
        mask: optional bool tensor (B, *grid), True where valid. Other cells
            are not seen; their output and weights are zero.
        extra: keys (B, X, N, D) and values (B, X, N, E) that every query
            sees, and a bool tensor (B, X) or None; or None, or three of it.
        implementation: "xla", tile by tile; "reference", masked and dense; or
            "auto", what `kanets.attention.implementation` has set.
        return_attention_scores: also return the weights, by "reference".

    Returns:
        Tensor (B, *grid, N, E) in the dtype of `value`; with
        `return_attention_scores` a pair of it and the weights (B, N, n,
        X + n) in float32.

    Raises:
        ValueError: shapes that do not fit each other or the axes, a bad
            `scale`, an unknown implementation.
    """
    query, key, value = map(ops.convert_to_tensor, (query, key, value))
    _check(query, key, value, head_axes)
    how = chosen(implementation, IMPLEMENTATIONS)
    attending = _tiled
    if how == "reference" or return_attention_scores:
        attending = _dense
    shape, grid = query.shape, ops.shape(query)[1:-2]
    scale = logit_scale(scale, query.shape[-1])
    query, key, value = (_heads_first(x, grid) for x in (query, key, value))
    key_mask, extras = None, 0
    if mask is not None:
        check_mask_shape(mask, keras.KerasTensor(shape[:-1]))
        mask = ops.reshape(ops.cast(mask, "bool"), (-1, cells(grid)))
        key_mask, mask = mask, mask[:, None, :, None]
    if extra is not None and any(x is not None for x in extra):
        _check_extra(extra, shape, value.shape[-1])
        extras = extra[0].shape[1]
        key, value, key_mask = _with_extra(key, value, key_mask, extra)
    found = []
    order = []
    for axes in dict.fromkeys(head_axes):  # heads alike are computed together
        heads = [i for i, other in enumerate(head_axes) if other == axes]
        parts = (query, key, value)
        if len(heads) < len(head_axes):
            parts = (ops.take(x, heads, axis=1) for x in parts)
        found.append(attending(*parts, axes, grid, scale, key_mask, extras))
        order += heads
    output, weights = (
        _in_order(part, order) for part in zip(*found, strict=True)
    )
    if mask is not None:
        output = ops.where(mask, output, 0)
        weights = None if weights is None else ops.where(mask, weights, 0)
    output = ops.transpose(output, (0, 2, 1, 3))
    output = ops.reshape(output, (-1, *grid, *output.shape[2:]))
    return (output, weights) if return_attention_scores else output


class LocalAttention(GridAttention):
    """Four linear maps around `local_attention`.

    A mechanism has `head_axes`, what `local_attention` takes, for a grid of
    some rank.

    Args:
        num_heads, projections, key_dim, scale, use_bias, kernel_initializer,
            kernel_regularizer, output_initializer: as in `GridAttention`.
    """

    def __init__(
        self, num_heads=1, projections="qkvo", scale="rsqrt", **kwargs
    ):
        super().__init__(num_heads, projections, scale=scale, **kwargs)

    def build(self, input_shape):
        super().build(input_shape)
        self._check_grid(input_shape[1:-1])

    def operator(
        self,
        inputs,
        num_heads,
        scale,
        mask,
        return_attention_scores,
        output=None,
        **maps,
    ):
        self._check_grid(inputs.shape[1:-1])
        heads = [
            self._heads(inputs, maps.get(name))
            for name in ("query", "key", "value")
        ]
        valid = None
        if mask is not None:
            mask = ops.convert_to_tensor(mask)
            valid = check_mask(mask, inputs)
        found, weights = self.attend_heads(
            inputs, heads, mask, return_attention_scores
        )
        found = self._merged(found, output, ops.shape(inputs)[1:-1])
        found = zero_padding(found, valid)
        return (found, weights) if return_attention_scores else found

    def attend_heads(
        self, inputs, heads, mask, return_attention_scores, extra=None
    ):
        """The operator, given what the maps made of the inputs.

        Args:
            inputs: (B, *grid, C).
            heads: queries, keys and values (B, *grid, N, D).
            mask, return_attention_scores, extra: as in `local_attention`.

        Returns:
            Output (B, *grid, N, D), and weights or None.
        """
        found = local_attention(
            *heads,
            self.head_axes(len(inputs.shape) - 2),
            self.scale,
            mask,
            extra,
            return_attention_scores=return_attention_scores,
        )
        return found if return_attention_scores else (found, None)

    def check_inputs(self, inputs, mask=None):
        super().check_inputs(inputs, mask)
        self._check_grid(inputs.shape[1:-1])

    def attention_maps(self, inputs, position):
        """How much each cell of a picture counts for the output at one cell.

        As of all layers, but with the scores of that cell alone, O(H W D).
        """
        grid = check_picture(inputs, position)
        inputs = ops.cast(inputs, self.compute_dtype)
        if not self.built:
            self.build(inputs.shape)
        index = position[0] * grid[1] + position[1]
        query, key = (
            _heads_first(self._heads(inputs, self._maps.get(name)), grid)
            for name in ("query", "key")
        )
        visible = []
        for axes in self.head_axes(2):
            rows, columns = map(seen_along, axes, grid)
            seen = np.outer(rows[position[0]], columns[position[1]])
            visible.append(seen.reshape(1, -1))
        logits = scores(
            query[:, :, index : index + 1],
            key,
            logit_scale(self.scale, query.shape[-1]),
        )
        maps = ops.convert_to_numpy(masked_softmax(logits, np.stack(visible)))
        return maps.reshape(len(maps), -1, *grid)

    def _heads(self, inputs, linear):
        """(B, *grid, C) -> (B, *grid, N, D), by a map or as it is."""
        tokens = ops.reshape(inputs, (-1, inputs.shape[-1]))
        if linear is not None:
            tokens = linear(tokens)
        size = tokens.shape[-1] // self.num_heads
        grid = ops.shape(inputs)[1:-1]
        return ops.reshape(tokens, (-1, *grid, self.num_heads, size))

    def _merged(self, heads, linear, grid):
        """(B, *grid, N, E) -> (B, *grid, C)."""
        tokens = ops.reshape(heads, (-1, heads.shape[-2] * heads.shape[-1]))
        if linear is not None:
            tokens = linear(tokens)
        return ops.reshape(tokens, (-1, *grid, tokens.shape[-1]))

    def _token_counts(self, grid):
        return (cells(grid),) * 2

    def _check_grid(self, grid):
        for axes in self.head_axes(len(grid)):
            check_sizes(axes, grid)


def check_heads_given(values, num_heads):
    """Raises a ValueError unless there is a value for each head."""
    if len(values) != num_heads:
        raise ValueError(
            "What is given by head must be given for each of them. Received: "
            f"{len(values)} values, num_heads={num_heads}"
        )


def _tiled(query, key, value, axes, grid, scale, key_mask, extras):
    """Output (B, N, n, E), and no weights."""
    queries, keys, visible, home = tiles_of(axes, grid, extras)
    heads, tiles = query.shape[1], ops.shape(queries)[0]

    def gathered(x, index, axis):
        x = _take(x, index, axis)
        return ops.reshape(x, (-1, tiles, index.shape[1], x.shape[-1]))

    if key_mask is not None:
        key_mask = ops.repeat(key_mask, heads, axis=0)
        shown = gathered(key_mask[..., None], keys, 1)
        visible = ops.logical_and(ops.swapaxes(shown, 2, 3), visible)
    # Added and not chosen by `where`, with which XLA compiles small products,
    # and a mask, for seconds. A query that sees a key sees nothing hidden.
    bias = ops.cast(ops.logical_not(visible), "float32") * hidden()
    output, _ = attend(
        gathered(query, queries, 2),
        gathered(key, keys, 2),
        gathered(value, keys, 2),
        bias=bias,
        scale=scale,
    )
    slots = tiles * queries.shape[1]
    if key_mask is not None:
        seen = ops.any(visible, axis=-1, keepdims=True)
        output = output * ops.cast(seen, output.dtype)
    output = ops.reshape(output, (-1, heads, slots, value.shape[-1]))
    return _take(output, home, 2), None


def _dense(query, key, value, axes, grid, scale, key_mask, extras):
    """Output (B, N, n, E) and weights (B, N, n, X + n)."""
    if not all(isinstance(size, int) for size in grid):
        raise ValueError(
            "The weights of all pairs need a known grid. "
            f"Received: {sum(not isinstance(n, int) for n in grid)} open sizes"
        )
    visible = visible_pairs(axes, grid)
    visible = np.pad(visible, ((0, 0), (extras, 0)), constant_values=True)
    if key_mask is not None:
        visible = ops.logical_and(key_mask[:, None, None], visible)
    return attend(
        query,
        key,
        value,
        visible,
        scale=scale,
        rows_may_be_empty=key_mask is not None,
    )


def _take(x, index, axis):
    """Rows of an axis; without a copy where they are all of it in order."""
    if isinstance(index, np.ndarray):
        index = index.ravel()
        if np.array_equal(index, np.arange(x.shape[axis])):
            return x
    else:
        index = ops.reshape(index, (-1,))
    return ops.take(x, index, axis=axis)


def _heads_first(x, grid):
    """(B, *grid, N, D) -> (B, N, n, D)."""
    heads, size = x.shape[-2:]
    if heads == 1:  # no transposition, which tf2onnx would mistake
        return ops.reshape(x, (-1, 1, cells(grid), size))
    x = ops.reshape(x, (-1, cells(grid), heads, size))
    return ops.transpose(x, (0, 2, 1, 3))


def _with_extra(key, value, key_mask, extra):
    """Keys, values and mask, the extra ones first."""
    more = [ops.transpose(x, (0, 2, 1, 3)) for x in extra[:2]]
    key = ops.concatenate([more[0], key], axis=2)
    value = ops.concatenate([more[1], value], axis=2)
    if key_mask is None and extra[2] is None:
        return key, value, None
    there = ops.ones_like(key[:, 0, :, 0], dtype="bool")
    shown = there[:, : extra[0].shape[1]] if extra[2] is None else extra[2]
    if key_mask is None:
        key_mask = there[:, extra[0].shape[1] :]
    shown = ops.cast(shown, "bool")
    return key, value, ops.concatenate([shown, key_mask], axis=1)


def _in_order(parts, order):
    """Heads that were computed apart, in their order; None stays."""
    if len(parts) == 1 or parts[0] is None:
        return parts[0]
    together = ops.concatenate(parts, axis=1)
    return ops.take(together, np.argsort(order), axis=1)


def _check(query, key, value, head_axes):
    shapes = [tuple(x.shape) for x in (query, key, value)]
    received = "Received: query={}, key={}, value={}".format(*shapes)
    if len(shapes[0]) < 4 or shapes[0] != shapes[1]:
        raise ValueError(
            "query and key must be (batch, *grid, heads, size), of one shape "
            f"and with one grid axis or more. {received}"
        )
    if shapes[0][:-1] != shapes[2][:-1]:
        raise ValueError(
            f"value must be of the key's grid and heads. {received}"
        )
    if len(head_axes) > 1:
        check_heads_given(head_axes, shapes[0][-2])
    for axes in head_axes:
        check_sizes(axes, shapes[0][1:-2])


def _check_extra(extra, shape, size):
    """Raises a ValueError unless it fits keys (B, *grid, N, D), values of E."""
    names = ("extra_key", "extra_value", "extra_mask")
    shapes = [None if x is None else tuple(x.shape) for x in extra]
    count = (shapes[0] or ())[1:2]
    rows = (shape[0], *count)
    wanted = [(*rows, *shape[-2:]), (*rows, shape[-2], size), rows]
    known = [
        given is not None and fits(given, one)
        for given, one in zip(shapes, wanted, strict=True)
    ]
    if not all(known[:2]) or not (known[2] or extra[2] is None):
        received = ", ".join(map("{}={}".format, names, shapes))
        raise ValueError(
            "extra_key and extra_value must be (batch, tokens, heads, size), "
            "both, of the batch, heads and sizes of key and value, and "
            f"extra_mask (batch, tokens). Received: {received}, "
            f"key={tuple(shape)}, size of value={size}"
        )
