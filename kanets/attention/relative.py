"""Relative positions of Shaw et al.: what depends on key less query.

Shaw, Uszkoreit and Vaswani, "Self-Attention with Relative Position
Representations", NAACL 2018: a logit is q_i (k_j + a_{j-i}), an output the
weighted sum of v_j + b_{j-i}, with learned tables a and b of the offsets that
a limit leaves, and the nearest entry beyond it. The n x n vectors are never
formed: a query is multiplied by the table, and the products are shifted
(Huang et al., "Music Transformer", ICLR 2019).

On grids each axis has a table, and an offset the sum of its axes' entries.

Letters: G groups (batch, heads and tiles), t queries and w keys of a tile
along an axis, J offsets, D size of a head.
"""

import dataclasses
import math

from keras import ops

from kanets.attention.core import scores


def shift(x):
    """Row q moves q to the right: (..., t, J) -> (..., t, t + J - 1)."""
    *before, rows, columns = ops.shape(x)
    x = ops.concatenate([x, ops.zeros((*before, rows, rows), x.dtype)], -1)
    x = ops.reshape(x, (*before, rows * (columns + rows)))
    x = x[..., : rows * (columns + rows - 1)]
    return ops.reshape(x, (*before, rows, columns + rows - 1))


def unshift(x):
    """Row q moves q to the left: (..., t, t + J - 1) -> (..., t, J)."""
    *before, rows, columns = ops.shape(x)
    x = ops.reshape(x, (*before, rows * columns))
    x = ops.concatenate([x, ops.zeros((*before, rows), x.dtype)], -1)
    x = ops.reshape(x, (*before, rows, columns + 1))
    return x[..., : columns + 1 - rows]


@dataclasses.dataclass(frozen=True)
class RelativePositions:
    """A vector an offset; beyond the limits that of the nearest.

    Attributes:
        vectors: tensor (J, D), for all heads, or (N, J, D).
        low: the offset of the first.
    """

    vectors: object
    low: int

    def along(self, axis):
        """The vectors of the offsets that an axis has, (..., its J, D)."""
        place = len(self.vectors.shape) - 2
        indices = ops.arange(axis.length, dtype="int32")
        indices = indices + (axis.lowest - self.low)
        indices = ops.clip(indices, 0, self.vectors.shape[place] - 1)
        return ops.take(self.vectors, indices, axis=place)

    def rows(self, x, axes):
        """(G, *tile, D) as what the vectors multiply: (..., rows, D)."""
        if len(self.vectors.shape) == 2:
            return ops.reshape(x, (-1, ops.shape(x)[-1]))
        rows = math.prod(axis.count * axis.tile for axis in axes)
        heads = self.vectors.shape[0]
        return ops.reshape(x, (-1, heads, rows, ops.shape(x)[-1]))


def relative_scores(query, tables, axes, scale=1.0):
    """q_i a_{j-i}, summed over the axes.

    Args:
        query: tensor (G, *tile, D); G is batch, heads and tiles, in this
            order.
        tables: a `RelativePositions` an axis.
        axes: `tiles.Axis`, one an axis.
        scale: float.

    Returns:
        Tensor (G, queries of a tile, keys of a tile), float32 or wider.

    Cost: O(J D) time a query and axis, O(keys) memory a query.
    """
    total, sizes = None, [axis.tile for axis in axes]
    for place, (table, axis) in enumerate(zip(tables, axes, strict=True)):
        found = scores(table.rows(query, axes), table.along(axis), scale)
        found = ops.reshape(found, (-1, *sizes, axis.length))
        found = _beside_last(found, place, len(axes))
        found = shift(found)[..., axis.start : axis.start + axis.width]
        found = _beside_last(found, place, len(axes))
        ones = [1] * len(axes)
        ones[place] = axis.width
        found = ops.reshape(found, (-1, *sizes, *ones))
        total = found if total is None else total + found
    keys = math.prod(axis.width for axis in axes)
    return ops.reshape(total, (-1, math.prod(sizes), keys))


def relative_sums(weights, tables, axes):
    """The sum over j of w_ij b_{j-i}, summed over the axes.

    Args:
        weights: tensor (G, queries of a tile, keys of a tile).
        tables, axes: as in `relative_scores`.

    Returns:
        Tensor (G, *tile, E) in the dtype of the weights.
    """
    total, rank = None, len(axes)
    sizes = [axis.tile for axis in axes]
    weights = ops.reshape(weights, (-1, *sizes, *(a.width for a in axes)))
    for place, (table, axis) in enumerate(zip(tables, axes, strict=True)):
        others = [1 + rank + a for a in range(rank) if a != place]
        found = ops.sum(weights, others) if others else weights
        found = _beside_last(found, place, rank)
        *before, width = ops.shape(found)
        after = axis.length + axis.tile - 1 - axis.start - width
        zeros = [
            ops.zeros((*before, n), found.dtype) for n in (axis.start, after)
        ]
        found = unshift(ops.concatenate([zeros[0], found, zeros[1]], -1))
        found = table.rows(_beside_last(found, place, rank), axes)
        found = ops.matmul(found, ops.cast(table.along(axis), found.dtype))
        found = ops.reshape(found, (-1, *sizes, table.vectors.shape[-1]))
        total = found if total is None else total + found
    return total


def _beside_last(x, place, rank):
    """Swaps an axis of the tile and its last: x is (G, *tile, entries)."""
    return ops.swapaxes(x, place + 1, rank) if place + 1 < rank else x
