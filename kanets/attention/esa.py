"""How the patterns of a grid are put together: Enumerate, Shift, Apply.

Daras et al., "Your Local GAN" (CVPR 2020), section 3.3; `patterns` says what
each of them is. Equal arguments give the same object.
"""

import functools
import math

import numpy as np

from kanets.attention.pattern_kinds import (
    GroupPattern,
    SummaryPattern,
    grid_shape,
)


def esa_order(grid):
    """Cells of a grid in ESA order.

    Args:
        grid: (H, W), or an integer for the order as it is.

    Returns:
        int32 [n]: the row-major index of the cell of each rank.
    """
    shape = grid_shape(grid)
    if len(shape) == 1:
        return np.arange(shape[0], dtype=np.int32)
    rows, columns = np.divmod(np.arange(math.prod(shape)), shape[1])
    return np.argsort(rows + columns, kind="stable").astype(np.int32)


@functools.lru_cache(maxsize=256)
def floor(name, query_shape, key_shape, stride, alignment):
    blocks = _blocks(esa_order(key_shape), stride)
    groups, copies = _query_groups(query_shape, key_shape, alignment, blocks)
    visible = np.tri(blocks.shape[1], dtype=bool)
    if name == "right_floor":
        visible = visible.T
    visible = np.repeat(visible, copies, axis=0)
    return GroupPattern(name, query_shape, key_shape, groups, blocks, visible)


@functools.lru_cache(maxsize=256)
def repetitive(
    name, query_shape, key_shape, stride, alignment, overlap, partial_block
):
    order = esa_order(key_shape)
    n = len(order)
    whole = n - n % stride
    block = np.arange(whole).reshape(-1, stride)
    left = name == "left_repetitive"
    ranks = block[:, -overlap:] if left else block[:, :overlap]
    ranks = ranks.ravel()
    if partial_block:
        rest = np.arange(whole, n)
        rest = rest[-overlap:] if left else rest[:overlap]
        ranks = np.concatenate([ranks, rest])
    own = query_cells(query_shape, key_shape, alignment)
    return SummaryPattern(
        name, query_shape, key_shape, np.sort(order[ranks]), own
    )


@functools.lru_cache(maxsize=256)
def strided_window(query_shape, key_shape, stride, alignment):
    blocks = _blocks(esa_order(key_shape), stride)
    groups, copies = _query_groups(query_shape, key_shape, alignment, blocks)
    before = np.concatenate([np.full_like(blocks[:1], -1), blocks[:-1]])
    keys = np.concatenate([before, blocks], axis=1)
    distance = np.arange(stride)[:, None] + stride - np.arange(2 * stride)
    visible = np.repeat((distance >= 0) & (distance < stride), copies, axis=0)
    return GroupPattern(
        "strided_window", query_shape, key_shape, groups, keys, visible
    )


@functools.lru_cache(maxsize=256)
def strided_repetitive(query_shape, key_shape, stride, alignment):
    classes = np.ascontiguousarray(_blocks(esa_order(key_shape), stride).T)
    groups, _ = _query_groups(query_shape, key_shape, alignment, classes)
    return GroupPattern(
        "strided_repetitive", query_shape, key_shape, groups, classes, None
    )


@functools.lru_cache(maxsize=256)
def dense(query_shape, key_shape):
    queries = np.arange(math.prod(query_shape))[None]
    keys = np.arange(math.prod(key_shape))[None]
    return GroupPattern("dense", query_shape, key_shape, queries, keys, None)


def _blocks(order, size):
    """Consecutive blocks [ceil(n / size), size]; -1 pads the last one."""
    padded = np.full(-(-len(order) // size) * size, -1, np.int32)
    padded[: len(order)] = order
    return padded.reshape(-1, size)


def query_cells(query_shape, key_shape, alignment):
    """The key cell whose row of the pattern each query takes."""
    if alignment == "tiled":
        return np.arange(math.prod(query_shape)) % math.prod(key_shape)
    along = [
        np.arange(queries) * keys // queries
        for queries, keys in zip(query_shape, key_shape, strict=True)
    ]
    cells = np.meshgrid(*along, indexing="ij")
    return np.ravel_multi_index([c.ravel() for c in cells], key_shape)


def _query_groups(query_shape, key_shape, alignment, key_groups):
    """Queries in the layout of the key groups: `copies` slots for each key."""
    cells = query_cells(query_shape, key_shape, alignment)
    counts = np.bincount(cells, minlength=math.prod(key_shape))
    copies = counts.max()
    by_cell = np.full((len(counts) + 1, copies), -1, np.int32)
    queries = np.argsort(cells, kind="stable")
    turns = np.arange(len(cells)) - np.repeat(
        np.cumsum(counts) - counts, counts
    )
    by_cell[cells[queries], turns] = queries  # the last row is the padding's
    return by_cell[key_groups].reshape(len(key_groups), -1), copies
