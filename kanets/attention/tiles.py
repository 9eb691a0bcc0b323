"""Grids cut into tiles, each beside the keys that its queries may see.

An axis is cut into tiles of t queries. Those see the keys of their own tile
and of the tiles next to it, gathered once a tile and not once a query, so that
attention within a reach r costs O(n r) along an axis in time and memory, of
large products. Where that does not pay the axis stays whole: one tile.

Sizes may be tensors, where a graph leaves them open.
"""

import dataclasses
import math

from keras import ops


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis of a grid, and what its queries see of it.

    Offsets are positions of keys less those of queries.

    Attributes:
        queries: n, int or scalar tensor.
        past: P, how many keys stand before the first query, in all P + n.
        low, high: least and greatest offset of a tile's keys that matter;
            low <= 0, and high is 0, -1 or -low. Of a whole axis not used.
        whole: whether the axis is one tile.
    """

    queries: object
    past: object = 0
    low: int = 0
    high: int = 0
    whole: bool = True

    @property
    def tile(self):
        """t, the queries of a tile."""
        return self.queries if self.whole else max(-self.low, self.high, 1)

    @property
    def count(self):
        """How many tiles there are."""
        return 1 if self.whole else -(-self.queries // self.tile)

    @property
    def first(self):
        """The offset of a tile's first key from its first query."""
        return -self.past if self.whole else self.low

    @property
    def width(self):
        """The keys of a tile."""
        if self.whole:
            return self.past + self.queries
        return self.tile + self.high - self.low

    @property
    def lowest(self):
        """The least offset that `relative` knows in a tile."""
        return 1 - self.queries - self.past if self.whole else self.low

    @property
    def length(self):
        """How many offsets `relative` knows in a tile, from `lowest` on."""
        if self.whole:
            return 2 * self.queries + self.past - 1
        return self.high - self.low + 1

    @property
    def start(self):
        """How far the least offset of a tile's first key is from `lowest`."""
        return self.queries - 1 if self.whole else 0

    def offsets(self):
        """Of each key of a tile from each query: int32 (t, width)."""
        keys = ops.arange(self.width, dtype="int32") + self.first
        return keys - ops.arange(self.tile, dtype="int32")[:, None]


def cut(x, keys, reach, causal, whole):
    """How each axis of a grid is cut: a list of `tiles.Axis`."""
    whole = whole or reach is None
    low, high = (0, 0) if whole else (-reach, reach)
    if causal is not None:
        low, high = low + causal, causal
    sizes = zip(ops.shape(x)[1:-1], ops.shape(keys)[1:-1], strict=True)
    return [
        _axis(queries, all_keys - queries, low, high, whole)
        for queries, all_keys in sizes
    ]


def _axis(queries, past, low, high, whole):
    """An `Axis` that is cut where that is cheaper, or sizes are open."""
    axis = Axis(queries, past, low, high, whole)
    known = isinstance(queries, int) and isinstance(past, int)
    if not whole and known:
        dense = queries * (past + queries)
        whole = dense <= axis.count * axis.tile * axis.width
    return dataclasses.replace(axis, whole=whole)


def distances(axes, causal):
    """x of each query of a tile and each key: int32 (Q, K)."""
    offsets = [axis.offsets() for axis in axes]
    if causal is not None:
        return causal - offsets[0]
    rank, total = len(axes), None
    for place, offset in enumerate(offsets):
        others = [a for a in range(2 * rank) if a % rank != place]
        offset = ops.abs(offset)
        offset = ops.expand_dims(offset, others) if others else offset
        total = offset if total is None else ops.maximum(total, offset)
    sizes = (math.prod(a.tile for a in axes), math.prod(a.width for a in axes))
    return ops.reshape(total, sizes)


def visible_keys(axes, keys, key_mask, reach, causal):
    """Which keys there are within reach: bool (B or 1, 1, tiles, Q, K)."""
    distance = distances(axes, causal)
    seen = distance >= 0
    if reach is not None:
        seen = ops.logical_and(seen, distance <= reach)
    sizes = ops.shape(keys)[1:-1]
    if key_mask is None:
        if all(axis.whole for axis in axes):
            return seen
        there = ops.ones((1, *sizes, 1), "bool")
    else:
        key_mask = ops.cast(key_mask, "bool")
        there = ops.reshape(key_mask, (-1, *sizes, 1))
    there = windows(there, axes)
    count = math.prod(axis.count for axis in axes)
    keys = math.prod(axis.width for axis in axes)
    return ops.logical_and(seen, ops.reshape(there, (-1, 1, count, 1, keys)))


def rows(x):
    """(G, *tile, D) -> (G, cells of the tile, D)."""
    sizes = ops.shape(x)[1:-1]
    return ops.reshape(x, (-1, math.prod(sizes), x.shape[-1]))


def tiles(x, axes):
    """Queries, tile by tile: (G, *grid, D) -> (G tiles, *tile, D)."""
    for place, axis in enumerate(axes, start=1):
        if not axis.whole:
            missing = axis.count * axis.tile - axis.queries
            x = _cut(x, place, axis, 0, 0, missing, axis.tile)
    return x


def windows(x, axes):
    """Keys, tile by tile: (G, *keys, D) -> (G tiles, *width, D).

    What lies outside of the grid is zero, or False.
    """
    for place, axis in enumerate(axes, start=1):
        if not axis.whole:
            after = axis.tile if axis.high > 0 else 0
            missing = axis.count * axis.tile - axis.queries + after
            x = _cut(x, place, axis, axis.past, -axis.low, missing, axis.width)
    return x


def untile(x, axes):
    """What `tiles` has cut: (G tiles, *tile, D) -> (G, *grid, D)."""
    for place, axis in reversed(list(enumerate(axes, start=1))):
        if axis.whole:
            continue
        shape = ops.shape(x)
        before, after = math.prod(shape[1:place]), shape[place + 1 :]
        row = axis.tile * math.prod(after)
        x = ops.reshape(x, (-1, axis.count, before, row))
        x = ops.transpose(x, (0, 2, 1, 3))
        length = axis.count * axis.tile
        x = ops.reshape(x, (-1, before, length, math.prod(after)))
        x = x[:, :, : axis.queries]
        x = ops.reshape(x, (-1, *shape[1:place], axis.queries, *after))
    return x


def _cut(x, place, axis, start, before, missing, width):
    """Cuts one axis into tiles, `width` entries of each and of what follows.

    Args:
        x: tensor (G, *others, entries, *others).
        place: of the axis.
        axis: an `Axis` that is not whole.
        start: the entry that tiles begin at, once `before` zeros stand in
            front.
        before, missing: zeros in front and at the end.
        width: entries of a tile.
    """
    shape = ops.shape(x)
    middle, last = shape[1:place], shape[place + 1 :]
    depth = math.prod(last)
    x = ops.reshape(x, (shape[0], math.prod(middle), shape[place], depth))
    around = [
        ops.zeros((shape[0], math.prod(middle), size, depth), x.dtype)
        for size in (before, missing)
    ]
    x = ops.concatenate([around[0], x, around[1]], axis=2)
    beside = -(-width // axis.tile)  # tiles that one reads
    total = axis.count + beside - 1
    x = x[:, :, start : start + total * axis.tile]
    x = ops.reshape(x, (-1, math.prod(middle), total, axis.tile * depth))
    parts = [x[:, :, i : i + axis.count] for i in range(beside)]
    x = ops.concatenate(parts, axis=3)[..., : width * depth]
    x = ops.transpose(x, (0, 2, 1, 3))
    return ops.reshape(x, (-1, *middle, width, *last))
