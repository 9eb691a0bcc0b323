"""Grids as tokens: what operators on (B, *grid, C) share.

Letters: B batch, H W grid, C channels, N heads, T tokens.
"""

import math

import keras
import numpy as np
from keras import ops

from kanets.attention.core import attention


def mapped_attention(
    queries,
    keys,
    maps,
    num_heads,
    scale,
    key_mask,
    attend=attention,
    rectify=False,
):
    """o(Attn(q(queries), k(keys), v(keys))) of tokens.

    Args:
        queries: tensor (B, Q, C).
        keys: tensor (B, K, C).
        maps: q, k, v and o, callables linear in the last axis, or None.
        num_heads, scale, key_mask: as in `core.attention`.
        attend: what attends, as `core.attention`.
        rectify: whether o is of relu6(v(keys) + Attn(...)); the queries are
            the keys then.

    Returns:
        As `core.attention`.
    """
    query, key, value, output = maps
    values = _apply(value, keys)
    result, weights = attend(
        _apply(query, queries),
        _apply(key, keys),
        values,
        num_heads,
        scale,
        key_mask,
    )
    if rectify:
        result = ops.relu6(values + result)
    return _apply(output, result), weights


def flatten(x):
    """(B, *grid, C) -> (B, product of the grid, C)."""
    return ops.reshape(x, (-1, cells(ops.shape(x)[1:-1]), x.shape[-1]))


def unflatten(tokens, x, mask):
    """Back to the grid of x; positions that are padding become zero."""
    grid = ops.shape(x)[1:-1]
    result = ops.reshape(tokens, (-1, *grid, tokens.shape[-1]))
    return zero_padding(result, mask)


def zero_padding(result, mask):
    """Zeros where a mask (B, *grid) is not True."""
    if mask is None:
        return result
    return result * ops.expand_dims(ops.cast(mask, result.dtype), -1)


def cells(grid):
    """How many cells a grid has; None if a size is open."""
    grid = tuple(grid)
    return None if None in grid else math.prod(grid)


def spread(weights, grid, pool_size):
    """Weights of pooled keys, spread evenly over the cells each one holds.

    Args:
        weights: NumPy array (..., keys).
        grid: (H, W).
        pool_size: side of the "same" pooling that made the keys.

    Returns:
        NumPy array (..., H, W), of the same sums.
    """
    rows, row_counts = _windows(grid[0], pool_size)
    columns, column_counts = _windows(grid[1], pool_size)
    pooled = (*weights.shape[:-1], rows[-1] + 1, columns[-1] + 1)
    counts = row_counts[:, None] * column_counts
    return weights.reshape(pooled)[..., rows[:, None], columns] / counts


def spread_by(weights, rows, columns):
    """Weights of keys that are means of cells, over the cells.

    Args:
        weights: NumPy array (..., h·w).
        rows: array (h, H), of each row of keys its share of each row of cells.
        columns: array (w, W), the same of columns.

    Returns:
        NumPy array (..., H, W), of the same sums where those of the shares
        are 1.
    """
    weights = weights.reshape(*weights.shape[:-1], len(rows), len(columns))
    return np.einsum("...pq,ph,qw->...hw", weights, rows, columns)


def block_shares(size, side):
    """Of blocks side by side, one at least, their shares of an axis's cells.

    Args:
        size: cells of the axis; what fills no block is in none.
        side: of a block.

    Returns:
        Array (blocks, size), its rows of sum 1.
    """
    side = min(side, size)
    blocks = size // side
    shares = np.arange(size)[None] // side == np.arange(blocks)[:, None]
    return shares / side


def fill_block(x, side):
    """A picture of one block of `side` at least: its last cells are repeated.

    Args:
        x: tensor (B, H, W, C).
        side: of a block.

    Returns:
        Tensor (B, max(H, side), max(W, side), C).
    """
    for axis in (1, 2):
        size = ops.shape(x)[axis]
        if side == 1 or (isinstance(size, int) and size >= side):
            continue
        places = ops.arange(ops.maximum(size, side), dtype="int32")
        x = ops.take(x, ops.minimum(places, size - 1), axis=axis)
    return x


def average_pool(x, pool_size):
    """Means of windows side by side, the last of them over what they hold.

    That is "same" pooling, but on PyTorch, where Keras 3.15 repeats the edge
    of a picture that is no multiple of the window.

    Args:
        x: float tensor (B, H, W, C).
        pool_size: side of the window, and stride.

    Returns:
        Tensor (B, H / pool_size, W / pool_size, C), sizes rounded up.
    """
    padding = "same"
    if keras.backend.backend() == "torch":
        counts = [_windows(size, pool_size)[1] for size in x.shape[1:3]]
        share = pool_size**2 / np.outer(*counts)
        missing = [-size % pool_size for size in x.shape[1:3]]
        around = [(n // 2, n - n // 2) for n in missing]
        x = ops.multiply(x, ops.cast(share[..., None], x.dtype))
        x = ops.pad(x, [(0, 0), *around, (0, 0)])
        padding = "valid"
    return ops.average_pool(
        x, pool_size, pool_size, padding, data_format="channels_last"
    )


def grid_axes(x):
    """The axes of (B, *grid, C) that are the grid's."""
    if len(x.shape) < 3:
        raise ValueError(
            "x must be (batch, *grid, channels) with one grid axis or more. "
            f"Received: x.shape={tuple(x.shape)}"
        )
    return list(range(1, len(x.shape) - 1))


def check_mask(mask, x):
    """The mask as bool; raises unless it is (B, *grid)."""
    mask = ops.convert_to_tensor(mask)
    check_mask_shape(mask, x)
    return ops.cast(mask, "bool")


def check_mask_shape(mask, x):
    """Raises a ValueError unless the mask, maybe symbolic, is (B, *grid)."""
    if not fits(mask.shape, x.shape[:-1]):
        raise ValueError(
            "mask must be (batch, *grid), the shape of x without channels. "
            f"Received: mask.shape={tuple(mask.shape)}, "
            f"x.shape={tuple(x.shape)}"
        )


def fits(shape, wanted):
    """Whether two shapes can be one, as far as their sizes are known."""
    return len(shape) == len(wanted) and all(
        None in pair or pair[0] == pair[1]
        for pair in zip(shape, wanted, strict=True)
    )


def _apply(linear_map, tokens):
    """The map of tokens (B, T, C), as one product of two matrices."""
    if linear_map is None:
        return tokens
    _, length, channels = ops.shape(tokens)
    result = linear_map(ops.reshape(tokens, (-1, channels)))
    return ops.reshape(result, (-1, length, result.shape[-1]))


def _windows(size, pool_size):
    """For each cell of an axis its window, and how many cells that holds."""
    before = -size % pool_size // 2  # padding, as of "same" pooling
    windows = (np.arange(size) + before) // pool_size
    return windows, np.bincount(windows)[windows]
