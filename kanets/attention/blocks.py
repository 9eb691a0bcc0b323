"""Blocks of a grid, each summed up in one vector by attention.

What a level of `kanets.attention.hierarchical` computes, and which levels
there are.

Letters: B batch, C channels, U those of a summary, N heads, D = U / N, n cells.
"""

import math

from keras import ops

from kanets.attention.checks import (
    check_at_least,
    check_positive,
    one_per_axis,
)
from kanets.attention.core import masked_softmax, wide_dtype
from kanets.attention.grid import check_mask
from kanets.attention.tiles import Axis, rows, tiles


def block_summaries(x, window, query, key, value, positions, mask=None):
    """One vector for each block of a grid, and so a smaller grid.

        a = softmax over the block of q tanh(key(X + P))
        S = V (sum over the block of a (X + P))

    for each head. Blocks lie side by side from the first cell on; the last
    ones along an axis hold what is left.

    Args:
        x: float tensor (B, *grid, C).
        window: integers, the sides of a block.
        query: q, tensor (N, D), one a head.
        key: callable linear in the last axis, C -> N·D.
        value: V, tensor (C, U), where U is a multiple of N.
        positions: P, tensor (cells of a block, C).
        mask: optional bool tensor (B, *grid), True where valid.

    Returns:
        S (B, *blocks, U) in the dtype of `x`, zero where nothing of a block
        is valid; a (B, N, blocks, cells of a block) in float32; and the mask
        of the blocks, bool (B, *blocks), or None where none came.

    Raises:
        ValueError: a mask that is not (B, *grid).

    Cost: O(n C N (D + 1)) time, O(n (C + N D)) memory.
    """
    axes = [
        Axis(size, low=-side, whole=False)
        for size, side in zip(ops.shape(x)[1:-1], window, strict=True)
    ]
    counts = [axis.count for axis in axes]
    blocks, cells = math.prod(counts), math.prod(window)
    num_heads, head_dim = query.shape
    tokens = rows(tiles(x, axes))  # (B blocks, cells, C)
    tokens = tokens + ops.cast(positions, tokens.dtype)
    keys = key(tokens)
    wide = wide_dtype(keys)
    keys = ops.reshape(keys, (-1, blocks, cells, num_heads, head_dim))
    logits = ops.tanh(ops.cast(keys, wide)) * ops.cast(query, wide)
    logits = ops.transpose(ops.sum(logits, axis=-1), (0, 3, 1, 2))
    visible = _visible(x, mask, axes)
    weights = masked_softmax(logits, visible, rows_may_be_empty=True)

    # Maps of sums, which are fewer than cells.
    shares = ops.transpose(ops.cast(weights, tokens.dtype), (0, 2, 1, 3))
    shares = ops.reshape(shares, (-1, num_heads, cells))
    value = ops.cast(value, tokens.dtype)
    value = ops.reshape(value, (x.shape[-1], num_heads, -1))
    summaries = ops.einsum("gnc,cnd->gnd", ops.matmul(shares, tokens), value)
    units = num_heads * value.shape[-1]
    summaries = ops.reshape(summaries, (-1, *counts, units))
    if mask is None:
        return summaries, weights, None
    there = ops.any(visible, axis=-1)
    return summaries, weights, ops.reshape(there, (-1, *counts))


def _visible(x, mask, axes):
    """Which cells of a block count: bool (B or 1, 1, blocks, cells), or None.

    What fills the last blocks up does not.
    """
    if mask is None:
        sizes = [axis.queries for axis in axes]
        if all(
            isinstance(axis.queries, int) and axis.queries % axis.tile == 0
            for axis in axes
        ):
            return None
        mask = ops.ones((1, *sizes), "bool")
    else:
        mask = check_mask(mask, x)
    blocks = math.prod(axis.count for axis in axes)
    cells = math.prod(axis.tile for axis in axes)
    mask = tiles(ops.expand_dims(mask, -1), axes)
    return ops.reshape(mask, (-1, 1, blocks, cells))


def check_windows(windows):
    """The windows as Python has them, or an error: see `block_levels`."""
    if not isinstance(windows, list | tuple):
        return check_at_least(2, windows=windows)
    check_positive(**{"the number of levels": len(windows)})
    return [one_per_axis("windows", sides) for sides in windows]


def block_levels(windows, grid):
    """The sides of the blocks of each level.

    Args:
        windows: an integer above 1, and the levels are as many as the grid
            takes, in time (the first of three axes) after those in space; or
            a list with a level each: an integer, or one for each axis.
        grid: sizes; they may be None where the levels are given.

    Returns:
        A list of tuples, one integer for each axis.

    Raises:
        ValueError: no such `windows`; a grid that one block of the last level
            does not hold, or of unknown size where the levels depend on it.

    Example:

    >>> block_levels(16, (10_000,))
    [(16,), (16,), (16,), (16,)]
    >>> block_levels(8, (30, 48, 64))
    [(1, 8, 8), (1, 8, 8), (8, 1, 1), (8, 1, 1)]
    """
    windows, rank, grid = check_windows(windows), len(grid), tuple(grid)
    if isinstance(windows, list):
        levels = [one_per_axis("windows", sides, rank) for sides in windows]
        held = tuple(math.prod(sides) for sides in zip(*levels, strict=True))
        if any(
            size is not None and size > most
            for size, most in zip(grid, held, strict=True)
        ):
            raise ValueError(
                f"windows must hold the whole grid, and hold {held}. "
                f"Received: windows={windows}, grid={grid}"
            )
        return levels
    if None in grid:
        raise ValueError(
            "The levels of a grid of unknown size must be given, as "
            f"windows=[{windows}, {windows}]. Received: windows={windows}, "
            f"grid={grid}"
        )
    levels = []
    for axes in [(1, 2), (0,)] if rank == 3 else [range(rank)]:
        sides = tuple(windows if axis in axes else 1 for axis in range(rank))
        size = max(grid[axis] for axis in axes)
        while size > 1:
            levels.append(sides)
            size = -(-size // windows)
    return levels or [(windows,) * rank]
