"""Grids cut into tiles of queries, each with the keys that it sees.

On every axis, whatever the mechanism, a query sees an interval of the cells
that lie a multiple of the dilation away from it. So the cells of an axis fall
into d groups of neighbours, and what is seen along several axes is the product
of intervals. A group is cut into tiles of t queries, which see t + w keys that
lie together, most of them all.

All is NumPy, and made while a graph is traced; where sizes are open it is the
graph's.
"""

import functools
import itertools
import math

import numpy as np
from keras import ops

FETCH = 32  # measured: 64 x 64 cells, heads of 32, two cores


class Axis:
    """What queries see along one axis; hashable, equal if its rule is.

    Attributes:
        dilation: d; cell i is number i // d of the group i % d.
        extent: t neighbours of a group see t + extent keys or fewer, in all.
    """

    def seen(self, number, length, xp):
        """The numbers of the first key seen, and of the one after the last.

        Args:
            number: int array, of the queries in their groups.
            length: int array that broadcasts to it, cells of the groups.
            xp: `numpy`, or `keras.ops` where sizes are open.
        """
        raise NotImplementedError

    def check_size(self, size):
        """Raises a ValueError for a size of the axis that is too small."""


def check_sizes(axes, grid):
    """Raises a ValueError for known sizes that are too small for the axes."""
    for axis, size in zip(axes, grid, strict=True):
        if isinstance(size, int):
            axis.check_size(size)


def visible_pairs(axes, grid):
    """Which cell sees which: NumPy bool (n, n), query by key, row by row.

    Args:
        axes: an `Axis` for each axis of the grid.
        grid: its sizes.
    """
    visible = np.ones((1, 1), bool)
    for axis, size in zip(axes, grid, strict=True):
        visible = outer(visible, seen_along(axis, size), np.logical_and, np)
    return visible


def seen_along(axis, size):
    """Which position of an axis sees which: NumPy bool (size, size)."""
    cell = np.arange(size)
    group, number = cell % axis.dilation, cell // axis.dilation
    length = -((group - size) // axis.dilation)
    start, stop = (bound[:, None] for bound in axis.seen(number, length, np))
    return (group == group[:, None]) & (number >= start) & (number < stop)


def tiles_of(axes, grid, extras):
    """How a grid is cut: NumPy arrays, or tensors where sizes are open.

    Returns:
        int32 (T, t), the cells that are queries; int32 (T, X + h), the cells
        that are keys, after extra ones; bool (T, t, X + h), which of them are
        seen; int32 (n,), where a cell is among the queries.
    """
    is_open = not all(isinstance(size, int) for size in grid)
    xp = ops if is_open else np
    sides = _sides(axes, tuple(None if is_open else size for size in grid))
    parts = [
        _axis_tiles(*one, xp) for one in zip(axes, grid, sides, strict=True)
    ]
    queries, keys, visible, tile, slot = parts[0]
    for part, size, side in zip(parts[1:], grid[1:], sides[1:], strict=True):
        tiles = part[0].shape[0] if not is_open else ops.shape(part[0])[0]

        def place(a, b, size=size):
            return a * size + b

        queries = outer(queries, part[0], place, xp)
        keys = outer(keys, part[1], place, xp)
        visible = outer(visible, part[2], xp.logical_and, xp)
        tile = outer(tile, part[3], functools.partial(place, size=tiles), xp)
        slot = outer(slot, part[4], functools.partial(place, size=side), xp)
    home = tile * math.prod(sides) + slot
    if extras:
        extra = xp.zeros_like(keys[:, :1]) + xp.arange(extras, dtype="int32")
        keys = xp.concatenate([extra, keys + extras], axis=1)
        seen = xp.ones_like(visible[:, :, :1]) & (extra[:, None] >= 0)
        visible = xp.concatenate([seen, visible], axis=2)
    return queries, keys, visible, home


def _axis_tiles(axis, size, side, xp):
    """As `tiles_of` of one axis; of each cell, its tile and its slot in it."""
    dilation = axis.dilation
    rows = -(-size // dilation)  # of the longest group
    tiles = -(-rows // side)
    width = side + axis.extent
    if xp is np:
        width = min(width, rows)
    group = xp.arange(dilation, dtype="int32")[:, None]
    length = -((group - size) // dilation)
    # What stands in a tile beyond the group is its last cell once more.
    number = xp.arange(tiles * side, dtype="int32")
    number = xp.maximum(xp.minimum(number, length - 1), 0)
    start, stop = axis.seen(number, length, xp)
    by_tile = (dilation, -1, side)
    start, stop = (xp.reshape(x, by_tile)[..., None] for x in (start, stop))
    key = start[:, :, :1] + xp.arange(width, dtype="int32")
    visible = (key >= start) & (key < stop)
    queries = xp.minimum(number * dilation + group, size - 1)
    keys = key[:, :, 0] * dilation + group[..., None]
    keys = xp.maximum(xp.minimum(keys, size - 1), 0)
    cell = xp.arange(size, dtype="int32")
    number = cell // dilation
    return (
        xp.reshape(queries, (-1, side)),
        xp.reshape(keys, (-1, width)),
        xp.reshape(visible, (-1, side, width)),
        cell % dilation * tiles + number // side,
        number % side,
    )


@functools.lru_cache(maxsize=256)
def _sides(axes, grid):
    """How many queries of each axis make a tile: what costs least.

    The scores of a tile cost as many products as it has queries times keys,
    and its keys must be fetched, which counts for as much as `FETCH` queries.
    """
    choices = [
        [(side, cost) for side, cost in _choices(*one)]
        for one in zip(axes, grid, strict=True)
    ]

    def cost(choice):
        queries = math.prod(side for side, _ in choice)
        return math.prod(keys for _, keys in choice) * (queries + FETCH)

    best = min(itertools.product(*choices), key=cost)
    return tuple(side for side, _ in best)


def _choices(axis, size):
    """Sides of tiles of an axis, and keys that are fetched for a cell."""
    if size is None:  # of any size; what is seen is a good scale of it
        side = -(-(axis.extent + 1) // 2)
        return [(side, (side + axis.extent) / side)]
    rows = -(-size // axis.dilation)
    parts = {-(-rows // count): count for count in range(rows, 0, -1)}
    return [
        (side, axis.dilation * count * min(side + axis.extent, rows) / size)
        for side, count in parts.items()
    ]


def outer(a, b, combine, xp):
    """(P, p, ...), (Q, q, ...) -> (P Q, p q, ...), row by row.

    Without a broadcast of twice the rank, which not every backend has.
    """
    sizes = zip(xp.shape(a), xp.shape(b), strict=True)
    for axis, (of_a, of_b) in enumerate(sizes):
        cell = xp.arange(of_a * of_b, dtype="int32")
        a = xp.take(a, cell // of_b, axis=axis)
        b = xp.take(b, cell % of_b, axis=axis)
    return combine(a, b)
