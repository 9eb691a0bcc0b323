"""Sparsity patterns of attention: which keys each query sees.

What a pattern is, `pattern_kinds` says; `sparse.pattern_attention` computes
with them. The functions below make those of "Your Local GAN" (Daras et al.,
CVPR 2020). Given an integer, they are the one-dimensional patterns of Sparse
Transformers (Child et al., 2019) without their causal mask. Given a grid
(H, W), the cells are Enumerated in order of Manhattan distance from the
corner (0, 0), ties by row; the one-dimensional pattern, Shifted to those
ranks, is Applied to the cells ("ESA", section 3.3). Cells and mask axes are
always in row-major order.

Every pattern has O(n sqrt n) edges for n = H W.

Their defaults are those of `LocalSparseAttention2D`: "spatial"
alignment, and a summary of an incomplete last block. The patterns of the paper
and of the official code are those of `ylg_heads(..., official=True)`, which is
alignment="tiled" and partial_block=False.
"""

import math
import sys
import warnings

import numpy as np

from kanets.attention import esa
from kanets.attention.esa import esa_order  # noqa: F401
from kanets.attention.pattern_kinds import (  # noqa: F401
    GroupPattern,
    NeighbourPattern,
    Pattern,
    SummaryPattern,
    grid_shape,
)

ALIGNMENTS = ("tiled", "spatial")


def left_floor(shape, key_shape=None, *, stride=None, alignment=None):
    """Block-local step, left to right.

    Rank i sees rank j if both are in the same block of `stride` ranks and
    j <= i. The last cell of a block then knows the whole block.

    Args:
        shape: n or (H, W) of the queries.
        key_shape: n or (H, W) of the keys; default that of the queries.
        stride: ranks in a block; default floor(sqrt(num_keys)).
        alignment: the key cell whose row of the pattern a query of a finer
            grid takes. "spatial", the default: the key cell that covers the
            query. "tiled": cell q mod num_keys, as in the official model,
            where neighbouring queries may look at distant keys. That was the
            default; where it gave another pattern, a DeprecationWarning asks
            for one of the two.

    Returns:
        A `GroupPattern`. Equal arguments give the same object.

    Raises:
        ValueError: shapes of different rank, a stride out of range, an
            unknown alignment.
    """
    return _floor("left_floor", shape, key_shape, stride, alignment)


def right_floor(shape, key_shape=None, *, stride=None, alignment=None):
    """Block-local step, right to left: `left_floor` with j >= i."""
    return _floor("right_floor", shape, key_shape, stride, alignment)


def left_repetitive(
    shape,
    key_shape=None,
    *,
    stride=None,
    overlap=1,
    partial_block=None,
    alignment=None,
):
    """Summary step after `left_floor`: the last cells of all blocks, and self.

    Args:
        shape: n or (H, W) of the queries.
        key_shape: n or (H, W) of the keys; default that of the queries.
        stride: ranks in a block; default floor(sqrt(num_keys)).
        overlap: how many cells of each block are summaries.
        partial_block: whether an incomplete last block has summaries, too,
            as it has by default. Officially it has none, and then what it
            holds reaches nobody (`ylg.information_flow` shows it). That was
            the default; a DeprecationWarning as for `alignment`.
        alignment: as in `left_floor`.

    Returns:
        A `SummaryPattern`. Equal arguments give the same object.

    Raises:
        ValueError: as in `left_floor`, or `overlap` not in 1..stride.
    """
    return _repetitive(
        "left_repetitive",
        shape,
        key_shape,
        stride,
        overlap,
        partial_block,
        alignment,
    )


def right_repetitive(
    shape,
    key_shape=None,
    *,
    stride=None,
    overlap=1,
    partial_block=None,
    alignment=None,
):
    """Summary step after `right_floor`: the first cells of all blocks."""
    return _repetitive(
        "right_repetitive",
        shape,
        key_shape,
        stride,
        overlap,
        partial_block,
        alignment,
    )


def strided_window(shape, key_shape=None, *, stride=None, alignment=None):
    """Rank i sees the `stride` ranks j that end with it: 0 <= i - j < stride.

    Arguments, result and errors as in `left_floor`.
    """
    return esa.strided_window(*_arguments(shape, key_shape, stride, alignment))


def strided_repetitive(shape, key_shape=None, *, stride=None, alignment=None):
    """Rank i sees the ranks j with (i - j) mod stride = 0.

    Arguments, result and errors as in `left_floor`.
    """
    return esa.strided_repetitive(
        *_arguments(shape, key_shape, stride, alignment)
    )


def dense(shape, key_shape=None, *, alignment=None):
    """Every query sees every key: O(n^2), the yardstick of the others.

    Args:
        shape, key_shape: as in `left_floor`.
        alignment: as there; it makes no difference here.

    Returns:
        A `GroupPattern` of one group.
    """
    alignment = "spatial" if alignment is None else alignment
    query_shape, key_shape, *_ = _arguments(shape, key_shape, None, alignment)
    return esa.dense(query_shape, key_shape)


PATTERNS = {
    "dense": dense,
    "left_floor": left_floor,
    "right_floor": right_floor,
    "left_repetitive": left_repetitive,
    "right_repetitive": right_repetitive,
    "strided_window": strided_window,
    "strided_repetitive": strided_repetitive,
}
YLG_HEADS = (
    "right_floor",
    "right_repetitive",
    "right_floor",
    "right_repetitive",
    "left_floor",
    "left_repetitive",
    "left_floor",
    "left_repetitive",
)


def ylg_heads(
    query_grid,
    key_grid=None,
    *,
    partial_block=None,
    alignment=None,
    official=False,
):
    """The patterns of the eight heads of YLG-SAGAN, in their official order.

    Args:
        query_grid: (H, W) of the queries, or n.
        key_grid: (H, W) of the keys, half of it each way in the official
            model; default that of the queries.
        partial_block: as in `left_repetitive`.
        alignment: as in `left_floor`.
        official: what is not given of the two is as in the paper and its
            code, False and "tiled". Ours are the defaults of
            `LocalSparseAttention2D`, True and "spatial".

    Returns:
        List of eight patterns.
    """
    return make_patterns(
        YLG_HEADS,
        query_grid,
        key_grid,
        partial_block=partial_block,
        alignment=alignment,
        official=official,
    )


def make_patterns(
    names,
    query_grid,
    key_grid=None,
    *,
    partial_block=None,
    alignment=None,
    official=False,
):
    """Patterns of a grid from their names.

    Args:
        names: sequence of keys of `PATTERNS`.
        query_grid, key_grid, partial_block, alignment, official: as in
            `ylg_heads`.

    Returns:
        List of patterns.

    Raises:
        ValueError: an unknown name.
    """
    unknown = [name for name in names if name not in PATTERNS]
    if unknown:
        raise ValueError(
            f"patterns must be among {sorted(PATTERNS)}. "
            f"Received: {unknown[0]!r}"
        )
    if official:
        alignment = "tiled" if alignment is None else alignment
        partial_block = False if partial_block is None else partial_block
    patterns = []
    for name in names:
        arguments = {"alignment": alignment}
        if PATTERNS[name] in (left_repetitive, right_repetitive):
            arguments["partial_block"] = partial_block
        patterns.append(PATTERNS[name](query_grid, key_grid, **arguments))
    return patterns


def plot(patterns, path, query=None):
    """Draws patterns side by side: the masks, and what one query sees.

    Args:
        patterns: a pattern or a list of them.
        path: PNG to write.
        query: index of the query whose keys are shown on the key grid, where
            a red dot marks its place; default the one in the middle.

    Raises:
        ImportError: matplotlib is missing.
    """
    from matplotlib.figure import Figure

    patterns = [patterns] if isinstance(patterns, Pattern) else list(patterns)
    figure = Figure(figsize=(3 * len(patterns), 6), layout="constrained")
    axes = figure.subplots(2, len(patterns), squeeze=False)
    for above, below, pattern in zip(*axes, patterns, strict=True):
        mask = pattern.mask()
        above.imshow(mask, cmap="Greys", aspect="auto", interpolation="none")
        above.set(title=pattern.name, xlabel="key", ylabel="query")
        shape = pattern.query_shape
        index = _middle(shape) if query is None else query
        sizes = pattern.key_shape if len(shape) == 2 else (1, pattern.num_keys)
        below.imshow(mask[index].reshape(sizes), cmap="Greys", vmin=0, vmax=1)
        # The query's place, from its own grid to that of the keys.
        grid = shape if len(shape) == 2 else (1, *shape)
        place = np.unravel_index(index, grid)
        row, column = (
            (at + 0.5) * keys / queries - 0.5
            for at, keys, queries in zip(place, sizes, grid, strict=True)
        )
        below.plot(column, row, "o", color="red")
        below.set(title=f"keys of query {index}", xticks=[], yticks=[])
    figure.savefig(path, dpi=100)


def _floor(name, shape, key_shape, stride, alignment):
    return esa.floor(name, *_arguments(shape, key_shape, stride, alignment))


def _repetitive(
    name, shape, key_shape, stride, overlap, partial_block, alignment
):
    arguments = _arguments(shape, key_shape, stride, alignment)
    _, key_shape, stride, _ = arguments
    if not isinstance(overlap, int) or not 1 <= overlap <= stride:
        raise ValueError(
            f"overlap must be in 1..stride. Received: overlap={overlap!r}, "
            f"stride={stride}"
        )
    if partial_block is None:
        partial_block = True
        if math.prod(key_shape) % stride:
            _warn_of_default("partial_block", True, False)
    return esa.repetitive(name, *arguments, overlap, bool(partial_block))


def _arguments(shape, key_shape, stride, alignment):
    query_shape = grid_shape(shape)
    key_shape = query_shape if key_shape is None else grid_shape(key_shape)
    if len(query_shape) != len(key_shape):
        raise ValueError(
            "Queries and keys must both be a sequence or both a grid. "
            f"Received: shape={shape!r}, key_shape={key_shape!r}"
        )
    n = math.prod(key_shape)
    if stride is None:
        stride = math.isqrt(n)
    if not isinstance(stride, int) or not 1 <= stride <= n:
        raise ValueError(
            f"stride must be in 1..{n}, the number of keys. "
            f"Received: stride={stride!r}"
        )
    if alignment is None:
        alignment = "spatial"
        cells = [esa.query_cells(query_shape, key_shape, a) for a in ALIGNMENTS]
        if not np.array_equal(*cells):
            _warn_of_default("alignment", "spatial", "tiled")
    if alignment not in ALIGNMENTS:
        raise ValueError(
            f"alignment must be one of {ALIGNMENTS}. "
            f"Received: alignment={alignment!r}"
        )
    return query_shape, key_shape, stride, alignment


def _warn_of_default(name, value, former):
    """Where the code stands that left it to a default that has changed."""
    level, frame = 1, sys._getframe()
    while frame.f_globals.get("__name__") == __name__:
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"The default of {name} is {value!r} now, as in "
        f"LocalSparseAttention2D. {name}={former!r} (or official=True, where "
        f"there is that) gives the former pattern, {name}={value!r} this one "
        "without a warning.",
        DeprecationWarning,
        stacklevel=level,
    )


def _middle(shape):
    return int(np.ravel_multi_index([size // 2 for size in shape], shape))
